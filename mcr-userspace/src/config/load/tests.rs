use std::fs;

use super::*;

const GOOD: &str = "version: 1\nrelays: [{name: r, from: a, to: b, groups: 239.1.1.1}]\n";

#[test]
fn a_good_file_loads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.yaml");
    fs::write(&path, GOOD).unwrap();
    let loaded = load(&path).unwrap();
    assert_eq!(loaded.rules.relays.len(), 1);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn rule_errors_name_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.yaml");
    fs::write(&path, GOOD.replace("239", "10")).unwrap();
    let error = load(&path).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    let start = format!("{}:2:44: error: `10.1.1.1`", path.display());
    assert!(error.to_string().starts_with(&start), "{error}");
}

#[test]
fn what_is_not_there_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let missing = load(&directory.path().join("none.yaml")).unwrap_err();
    assert!(matches!(missing, LoadError::Missing(_)));
    assert_eq!(missing.exit_code(), 66);
    let no_file = load(directory.path()).unwrap_err();
    assert!(matches!(no_file, LoadError::Directory(_)));
    assert_eq!(no_file.exit_code(), 66);
}

#[test]
fn the_system_s_errors_have_exit_codes_of_their_own() {
    let path = Path::new("rules.yaml");
    let permission = LoadError::io(path, ErrorKind::PermissionDenied.into());
    assert_eq!(permission.exit_code(), 77);
    let other = LoadError::io(path, io::Error::from_raw_os_error(libc::EIO));
    assert_eq!(other.exit_code(), 71);
    assert!(other.to_string().starts_with("rules.yaml: "), "{other}");
}

#[test]
fn a_file_without_an_end_is_too_large() {
    let error = load(Path::new("/dev/zero")).unwrap_err();
    assert!(error.to_string().contains("16 MiB is the most"), "{error}");
}

#[test]
fn only_regular_files_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.yaml");
    fs::write(&path, GOOD).unwrap();
    assert_eq!(load_again(&path).unwrap(), load(&path).unwrap());
    assert!(matches!(
        load_again(directory.path()),
        Err(LoadError::Directory(_))
    ));
    // It has no other end, which whoever opens it would wait for.
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [&pipe, Path::new("/dev/zero")] {
        let error = load_again(path).unwrap_err();
        assert!(matches!(error, LoadError::NotRegular(_)), "{error}");
        assert_eq!(error.exit_code(), 66);
    }
}
