//! The file system of a machine: an archive that the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::kernel::Unpacked;
use super::modules;
use crate::shell::{self, say};
use crate::test::Built;

/// The first program of a machine.
const INIT: &str = include_str!("init.sh");

/// Programs of this host that tests call. What is missing is left out, and the tests tell.
const PROGRAMS: [&str; 22] = [
    "avahi-browse",
    "avahi-daemon",
    "avahi-publish",
    "avahi-resolve",
    "bpftool",
    "bridge",
    "cat",
    "dbus-daemon",
    "ethtool",
    "ip",
    "mkdir",
    "mount",
    "nft",
    "nsenter",
    "setpriv",
    "sleep",
    "stdbuf",
    "tc",
    "tcpdump",
    "timeout",
    "umount",
    "unshare",
];

/// Files of this host that its programs open by themselves.
const FILES: [&str; 3] = [
    "/usr/lib/iproute2/rt_tables",
    "/usr/libexec/coreutils/libstdbuf.so",
    "/usr/share/dbus-1/system.conf",
];

/// The users that programs of this host want to know.
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n\
                     nobody:x:65534:65534:nobody:/:/bin/sh\n\
                     messagebus:x:100:100::/:/bin/sh\n\
                     avahi:x:101:101::/:/bin/sh\n";
const GROUPS: &str =
    "root:x:0:\nnogroup:x:65534:\nmessagebus:x:100:\navahi:x:101:\nnetdev:x:102:\n";

/// Directories that are the same as those below `/usr`, as in Debian.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Makes the archive for this kernel in `directory`, with the test binaries, which are to get `libtest`
/// as arguments.
pub(super) fn make(
    directory: &Path,
    kernel: &Unpacked,
    built: &Built,
    libtest: &[OsString],
) -> Result<PathBuf> {
    let root = Root::new(directory.join("root"))?;
    for program in PROGRAMS {
        if let Some(path) = shell::find(program)? {
            root.copy_program(&path)?;
        }
    }
    for file in FILES.iter().map(Path::new).filter(|file| file.exists()) {
        root.copy(file)?;
    }
    root.write("etc/passwd", USERS)?;
    root.write("etc/group", GROUPS)?;
    root.add_shell()?;
    root.add_modules(kernel)?;
    root.add_binary(&built.mcr, "usr/bin/mcr")?;
    for test in &built.tests {
        root.add_binary(&test.path, &format!("tests/{}", test.name))?;
    }
    let mut arguments = String::new();
    for argument in libtest {
        arguments.push_str(argument.to_str().context("an argument is no UTF-8")?);
        arguments.push('\n');
    }
    root.write("arguments", &arguments)?;
    let archive = directory.join("image.cpio");
    root.pack(&archive)?;
    Ok(archive)
}

/// The file system while it is made.
struct Root(PathBuf);

impl Root {
    fn new(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot clear {}", path.display()))?;
        }
        let root = Self(path);
        for merged in MERGED {
            let target = Path::new("usr").join(merged);
            root.directory(&target)?;
            let link = root.0.join(merged);
            symlink(&target, &link).with_context(|| format!("cannot make {}", link.display()))?;
        }
        for directory in [
            "dev", "proc", "root", "run", "sys", "tests", "tmp", "etc", "var",
        ] {
            root.directory(Path::new(directory))?;
        }
        Ok(root)
    }

    fn directory(&self, relative: &Path) -> Result<()> {
        let path = self.0.join(relative);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))
    }

    fn write(&self, relative: &str, text: &str) -> Result<()> {
        let path = self.0.join(relative);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Copies a file of this host to the same place, where it is not behind links of directories.
    fn copy(&self, path: &Path) -> Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let parent = parent
            .canonicalize()
            .with_context(|| format!("cannot find {}", path.display()))?;
        let parent = parent.strip_prefix("/").unwrap_or(&parent);
        self.directory(parent)?;
        let copy = self.0.join(parent).join(name);
        if !copy.exists() {
            fs::copy(path, &copy).with_context(|| format!("cannot copy {}", path.display()))?;
        }
        Ok(())
    }

    fn copy_program(&self, path: &Path) -> Result<()> {
        self.copy(path)?;
        self.copy_libraries(path)
    }

    /// Copies the libraries that a binary is linked with.
    fn copy_libraries(&self, binary: &Path) -> Result<()> {
        let ldd = Command::new("ldd")
            .arg(binary)
            .stdin(Stdio::null())
            .output()
            .context("cannot start ldd")?;
        // It fails for static ones, which need none.
        let text = String::from_utf8_lossy(&ldd.stdout);
        for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
            self.copy(Path::new(library))?;
        }
        Ok(())
    }

    /// Adds a binary cargo built, without its symbols.
    fn add_binary(&self, built: &Path, relative: &str) -> Result<()> {
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(self.0.join(relative)).arg(built);
        shell::run(&mut strip)?;
        self.copy_libraries(built)
    }

    /// Adds a shell with everything small, and what is the first to run.
    fn add_shell(&self) -> Result<()> {
        let busybox = shell::find("busybox")?.context("there is no busybox")?;
        let path = self.0.join("usr/bin/busybox");
        fs::copy(&busybox, &path).context("cannot copy busybox")?;
        // The kernel asks for modules by this name.
        for applet in ["usr/bin/sh", "usr/sbin/modprobe"] {
            let link = self.0.join(applet);
            symlink("/usr/bin/busybox", &link)
                .with_context(|| format!("cannot make {}", link.display()))?;
        }
        self.write("init", INIT)?;
        let init = self.0.join("init");
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", init.display()))
    }

    fn add_modules(&self, kernel: &Unpacked) -> Result<()> {
        let read = |name: &str| {
            let path = kernel.modules.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let dependencies = read("modules.dep")?;
        let builtin = read("modules.builtin")?;
        let (files, mut missing) = modules::files(&dependencies, &modules::WANTED);
        let mut loaded = modules::WANTED.to_vec();
        loaded.retain(|module| !missing.contains(module));
        self.write("modules", &(loaded.join("\n") + "\n"))?;
        missing.retain(|module| !builtin.contains(&format!("/{module}.ko")));
        if !missing.is_empty() {
            say(format!("{} has no {}", kernel.release, missing.join(", ")));
        }
        let home = Path::new("usr/lib/modules").join(&kernel.release);
        self.copy_modules(kernel, &home, &files)?;
        for list in [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ] {
            self.write(&home.join(list).to_string_lossy(), &read(list)?)?;
        }
        let mut depmod = Command::new("depmod");
        depmod.env("PATH", shell::search_path()?);
        shell::run(depmod.arg("-b").arg(&self.0).arg(&kernel.release))
    }

    fn copy_modules(&self, kernel: &Unpacked, home: &Path, files: &BTreeSet<&str>) -> Result<()> {
        for file in files {
            let relative = home.join(file);
            self.directory(relative.parent().unwrap_or(home))?;
            let copy = self.0.join(&relative);
            fs::copy(kernel.modules.join(file), &copy)
                .with_context(|| format!("cannot copy {file}"))?;
            if copy.extension().is_some_and(|extension| extension == "xz") {
                shell::run(Command::new("xz").arg("--decompress").arg(&copy))?;
            }
        }
        Ok(())
    }

    fn pack(&self, archive: &Path) -> Result<()> {
        let mut pack = Command::new("busybox");
        pack.env("PATH", shell::search_path()?)
            .args([
                "sh",
                "-c",
                "busybox find . | busybox cpio -o -H newc > \"$0\"",
            ])
            .arg(archive)
            .current_dir(&self.0)
            .stderr(Stdio::null());
        shell::run(&mut pack)
    }
}
