//! What the end-to-end tests and the demo of `mcr` are made with: network namespaces, traffic,
//! captures.
//!
//! Everything is a guard value. Namespaces have no name and live as long as a descriptor to them,
//! children are killed with the thread that started them: whatever way a test ends, nothing stays.
//! All of it needs root.
//!
//! - [`Netns`]: a namespace; commands, sysctls and links in it
//! - [`Topology`], [`Circle`]: namespaces joined as the tests need them
//! - [`UdpFrame`], [`Inject`], [`Capture`]: frames written, sent and received at layer 2
//! - [`Labelled`]: frames with labels, and behind which egress their copies must arrive
//! - [`Tap`]: a link whose wire is the test
//! - [`Member`], [`udp_sender`]: plain UDP sockets
//! - [`Held`]: what a process holds in the kernel, and what is left of it; [`Size`]: how large it is
//! - [`Reported`], [`Delivery`]: what hosts say of groups, and what bridges learn of it
//! - [`Chosen`]: how copies are made
//! - [`Confined`]: what processes may do
//! - [`Foreign`]: programs of others on the links
//! - [`Datapath`]: the ways `mcr` makes copies; [`on_every_datapath`] makes tests of a function
//! - [`Feature`]: what a kernel may lack; [`needs!`] leaves a test out there, visibly
//! - [`Mcr`], [`Receiver`], [`Sender`]: the binary under test, named by `MCR_BIN`
//!
//! [`oracle`], [`fixtures`], [`pipeline`], [`large`] and [`machine`] need no privileges: a naive model
//! of the contract with the user, frames with what must become of them, a datapath without a kernel, a
//! large rule file, and a machine that counts instructions of the kernel side.

mod capture;
mod chosen;
mod circle;
mod confined;
mod datapath;
mod feature;
pub mod fixtures;
mod foreign;
mod frame;
mod inject;
mod kernel;
mod labelled;
mod large;
mod lines;
mod links;
pub mod machine;
mod mcr;
mod netns;
pub mod oracle;
pub mod pipeline;
mod process;
mod reports;
mod size;
mod stats;
mod tap;
mod topology;
mod traffic;
mod udp;
mod view;

pub use capture::{Capture, Captured, PacketType, VlanTag};
pub use chosen::Chosen;
pub use circle::Circle;
pub use confined::Confined;
pub use datapath::Datapath;
pub use feature::{Feature, skipped, tell, tell_feature};
pub use foreign::{Direction, Foreign};
pub use frame::{Extension, UdpFrame, group_mac, socket};
pub use inject::Inject;
pub use kernel::Held;
pub use labelled::Labelled;
pub use large::large;
pub use lines::Lines;
pub use links::Link;
pub use mcr::{Host, Mcr, binary, rules};
pub use netns::Netns;
pub use process::Process;
pub use reports::{Delivery, Reported, Said};
pub use size::{Size, soak};
pub use stats::Stats;
pub use tap::Tap;
pub use topology::Topology;
pub use traffic::{Receiver, Sender, steady_rate};
pub use udp::{Member, udp_sender};
pub use view::UdpView;
