//! The last table on disk, so that a gateway that starts serves at once and without the node.

use std::io::{self, Write};
use std::path::Path;

use crate::table::Table;

/// Writes the table so that a reader sees the old one or the new one whole.
///
/// Not synced to the disk: it is for the gateway's own death. After the machine's, no instance is left that
/// the table could name.
///
/// # Errors
/// The kernel's, for instance that the disk is full; the file is as it was.
pub fn save(path: &Path, table: &Table) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let written = std::fs::File::create(&fresh).and_then(|mut file| file.write_all(&serde_json::to_vec(table)?));
    written.and_then(|()| std::fs::rename(&fresh, path)).inspect_err(|_| {
        // What is left of a failed try would only take up room; its own failure changes nothing.
        let _ = std::fs::remove_file(&fresh);
    })
}

/// The table kept last; `None` when there is none.
///
/// # Errors
/// In words: the file cannot be read, or what it holds is no table.
pub fn load(path: &Path) -> Result<Option<Table>, String> {
    match std::fs::read(path) {
        Ok(json) => Table::parse(&json).map(Some).map_err(|fault| format!("{}: {fault}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}
