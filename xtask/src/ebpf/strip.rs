//! What only debuggers read, left out of the object: the kernel's own description of types (BTF) is made of
//! it, and stays.

use anyhow::{Result, anyhow};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// The object without debug information.
pub(super) fn without_debug(bytes: &[u8]) -> Result<Vec<u8>> {
    let broken =
        |error: object::build::Error| anyhow!("the linker's object can't be read: {error}");
    let mut object = Builder::read(bytes).map_err(broken)?;
    for section in &mut object.sections {
        let name = &section.name;
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    // LLVM has names of sections and of symbols in one.
    let names = object.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    // And symbols of what is no longer there.
    object.delete_orphans();
    object.delete_unused_versions();
    let mut stripped = Vec::new();
    object.write(&mut stripped).map_err(broken)?;
    Ok(stripped)
}
