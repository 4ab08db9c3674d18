//! Kernels as Debian ships them: fetched by apt and verified by its keyring, unpacked, not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, say};

/// A kernel of Debian.
pub(super) struct Kernel {
    /// The first two numbers of its release.
    pub(super) version: &'static str,
    /// The suite it is in.
    suite: &'static str,
    /// The package that depends on the newest one. Kernels for clouds are small, and have the network
    /// devices there are without hardware.
    package: &'static str,
}

/// All that are tested on, oldest first.
pub(super) const KERNELS: [Kernel; 3] = [
    Kernel {
        version: "5.10",
        suite: "bullseye-security",
        package: "linux-image-cloud-amd64",
    },
    Kernel {
        version: "6.1",
        suite: "bookworm-security",
        package: "linux-image-cloud-amd64",
    },
    Kernel {
        version: "6.12",
        suite: "bookworm-security",
        package: "linux-image-6.12-cloud-amd64",
    },
];

/// The keys of Debian's archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that can be booted.
pub(super) struct Unpacked {
    /// As `uname -r` says.
    pub(super) release: String,
    /// The kernel itself.
    pub(super) image: PathBuf,
    /// Its modules, with `modules.dep`.
    pub(super) modules: PathBuf,
}

/// Fetches and unpacks a kernel below `directory`, unless it is there already.
pub(super) fn fetch(directory: &Path, kernel: &Kernel) -> Result<Unpacked> {
    let home = directory.join("kernels").join(kernel.version);
    let unpacked = home.join("unpacked");
    if !unpacked.exists() {
        let apt = Apt::prepare(&home, kernel.suite)?;
        let package = apt.newest(kernel.package)?;
        say(format!(
            "fetching {package} of Debian {}, to be unpacked in {}",
            kernel.suite,
            home.display()
        ));
        let archive = apt.download(&package)?;
        // Under its name only when it is complete.
        let partial = home.join("partial");
        let _ = fs::remove_dir_all(&partial);
        shell::run(Command::new("dpkg").arg("-x").args([&archive, &partial]))?;
        let release = release(&partial)?;
        let mut depmod = Command::new("depmod");
        depmod.env("PATH", shell::search_path()?);
        shell::run(depmod.arg("-b").arg(&partial).arg(&release))?;
        fs::rename(&partial, &unpacked)
            .with_context(|| format!("cannot rename {}", partial.display()))?;
    }
    let release = release(&unpacked)?;
    Ok(Unpacked {
        image: unpacked.join(format!("boot/vmlinuz-{release}")),
        modules: unpacked.join("lib/modules").join(&release),
        release,
    })
}

/// The release of the kernel in a directory: the only one that has modules.
fn release(unpacked: &Path) -> Result<String> {
    let modules = unpacked.join("lib/modules");
    let mut entries =
        fs::read_dir(&modules).with_context(|| format!("no modules in {}", modules.display()))?;
    let entry = entries
        .next()
        .with_context(|| format!("{} is empty", modules.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

/// apt with one suite as its only source, and lists of its own.
struct Apt {
    home: PathBuf,
    configuration: PathBuf,
}

impl Apt {
    fn prepare(home: &Path, suite: &str) -> Result<Self> {
        let make = |path: &str| {
            let path = home.join(path);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))
        };
        make("lists/partial")?;
        make("cache/archives/partial")?;
        let sources = home.join("sources.list");
        let line = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?);
        fs::write(&sources, line).with_context(|| format!("cannot write {}", sources.display()))?;
        let configuration = home.join("apt.conf");
        // The hooks belong to the system's own lists.
        let text = format!(
            "Dir::Etc::sourcelist \"{}\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::State::lists \"{}\";\n\
             Dir::Cache \"{}\";\n\
             APT::Architecture \"amd64\";\n\
             APT::Sandbox::User \"root\";\n\
             #clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n",
            sources.display(),
            home.join("lists").display(),
            home.join("cache").display()
        );
        fs::write(&configuration, text)
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let apt = Self {
            home: home.to_owned(),
            configuration,
        };
        shell::run(apt.tool("apt-get").args(["--quiet", "update"]))?;
        Ok(apt)
    }

    /// The package that `package` depends on for the kernel itself.
    fn newest(&self, package: &str) -> Result<String> {
        let text = shell::output(self.tool("apt-cache").args(["show", package]))?;
        // What is to be installed comes first.
        let mut depends = text
            .lines()
            .filter_map(|line| line.strip_prefix("Depends: "));
        depends
            .next()
            .and_then(|names| names.split([',', ' ']).next())
            .map(str::to_owned)
            .with_context(|| format!("{package} does not say which kernel it stands for"))
    }

    fn download(&self, package: &str) -> Result<PathBuf> {
        let mut download = self.tool("apt-get");
        shell::run(download.args(["download", package]).current_dir(&self.home))?;
        let entries = fs::read_dir(&self.home)
            .with_context(|| format!("cannot read {}", self.home.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&format!("{package}_")) {
                return Ok(path);
            }
        }
        bail!("apt-get has not left {package} in {}", self.home.display())
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.configuration);
        command
    }
}

/// Where this host's apt has Debian's security updates from, which kernels are among.
fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    let targets = targets.args(["indextargets", "--format", "$(RELEASE) $(REPO_URI)"]);
    let text = shell::output(targets)?;
    for line in text.lines() {
        if let Some((release, uri)) = line.split_once(' ')
            && release.ends_with("-security")
            && uri.contains("debian")
        {
            return Ok(uri.to_owned());
        }
    }
    bail!(
        "apt has no source of Debian's security updates, where kernels are fetched from: \
         add one as sources.list(5) says"
    )
}
