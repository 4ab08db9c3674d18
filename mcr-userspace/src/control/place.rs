//! Where the socket of an instance is.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The directory of the sockets that are named after their instances.
pub const DIRECTORY: &str = "/run/mcr";
/// The longest path of a socket, in bytes: `sun_path` of `struct sockaddr_un` without the zero
/// that ends it (`include/uapi/linux/un.h`).
pub const LONGEST_PATH: usize = 107;
/// The longest name of an instance, in characters.
const LONGEST_NAME: usize = 64;

/// The name of an instance among those on a host, which can be part of a file's name: letters,
/// digits, `-`, `_` and `.`, not at the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(String);

/// It can't be the name of an instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an instance has a name of up to {LONGEST_NAME} letters, digits, `-`, `_` and `.`, \
     not beginning with `.`"
)]
pub struct NotAnInstance;

impl Instance {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where its socket is, unless it is told another place.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        Path::new(DIRECTORY).join(format!("{}.sock", self.0))
    }
}

impl Default for Instance {
    /// The one that nobody has named.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for Instance {
    type Err = NotAnInstance;

    fn from_str(name: &str) -> Result<Self, NotAnInstance> {
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let valid = (1..=LONGEST_NAME).contains(&name.len())
            && !name.starts_with('.')
            && name.chars().all(ok);
        valid.then(|| Self(name.to_owned())).ok_or(NotAnInstance)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path of a socket, from its text.
///
/// # Errors
///
/// A sentence that says why there can't be one.
pub fn socket_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.ends_with('/') || text.contains('\0') {
        return Err("the path of a socket is wanted, as /run/mcr/default.sock".to_owned());
    }
    if text.len() > LONGEST_PATH {
        return Err(format!(
            "the path of a socket has at most {LONGEST_PATH} bytes, this one has {}",
            text.len()
        ));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        for good in ["default", "a", "lab-2", "studio_b.1", &"x".repeat(64)] {
            let instance: Instance = good.parse().unwrap();
            assert_eq!(instance.socket().parent(), Some(Path::new(DIRECTORY)));
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"x".repeat(65),
        ] {
            assert_eq!(bad.parse::<Instance>(), Err(NotAnInstance), "{bad:?}");
        }
        let longest: Instance = "x".repeat(64).parse().unwrap();
        assert!(longest.socket().as_os_str().len() <= LONGEST_PATH);
    }

    #[test]
    fn a_path_fits_in_an_address() {
        assert!(socket_path(&"x".repeat(LONGEST_PATH)).is_ok());
        let long = socket_path(&"x".repeat(LONGEST_PATH + 1)).unwrap_err();
        assert!(long.contains("107") && long.contains("108"), "{long}");
        assert!(socket_path("").is_err());
        assert!(socket_path("/run/mcr/").is_err());
        assert!(socket_path("a\0b").is_err());
    }
}
