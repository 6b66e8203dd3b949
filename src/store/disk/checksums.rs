//! Verifies the checksums of fjall's lists of tables, and of its tables as a whole, before fjall opens a directory.
//!
//! fjall 3.1 with lsm-tree 3.1 writes these checksums and does not verify them, so this must stay: lengths in these files
//! say how much memory to allocate, and one wrong bit asks for more than there is, which ends the process; or a list
//! names the wrong tables. Journals hold batches, whose checksums fjall verifies itself.
//!
//! The formats are those of the crate lsm-tree 3, of each keyspace `keyspaces/N`, all numbers little-endian:
//!
//! - `current`: the number of the newest list (8 bytes), the checksum of its file `vNUMBER` (16), and the kind of the
//!   checksum (1), of which 0 is the 128 bits of XXH3.
//! - the section `tables` of a list: how many levels (1); of each, how many runs (1); of each, how many tables (4); of
//!   each, its number (8), the kind of its checksum (1), the checksum of the file `tables/NUMBER` (16), and 8 bytes more.

use std::fs::{self, File};
use std::io::{self, Cursor, ErrorKind, Read};
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use super::format::Fields;

/// Bytes of a table that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Verifies the newest list of tables of every keyspace below fjall's directory, and the tables in it. A missing file, or
/// a `current` that is cut short, is left for fjall to report.
///
/// # Errors
///
/// A sentence that names a file whose checksum is wrong, or which cannot be read.
pub(super) fn check_tables(fjall: &Path) -> Result<(), String> {
    let directory = fjall.join("keyspaces");
    let keyspaces = match fs::read_dir(&directory) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        listed => listed.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()),
    };
    for keyspace in keyspaces.map_err(|error| cannot_read(&directory, &error))? {
        let Some((number, checksum)) = current(&keyspace.join("current"))? else { continue };
        let path = keyspace.join(format!("v{number}"));
        let Some(list) = if_present(&path, fs::read(&path))? else { continue };
        if xxh3_128(&list) != checksum {
            return Err(is_damaged(&path));
        }
        for (number, checksum) in tables(&list).ok_or_else(|| is_damaged(&path))? {
            let path = keyspace.join("tables").join(number.to_string());
            if if_present(&path, checksum_of(&path))?.is_some_and(|found| found != checksum) {
                return Err(is_damaged(&path));
            }
        }
    }
    Ok(())
}

/// The number of the newest list, and its checksum.
fn current(path: &Path) -> Result<Option<(u64, u128)>, String> {
    let Some(bytes) = if_present(path, fs::read(path))? else { return Ok(None) };
    let mut fields = Fields(&bytes);
    let (Some(number), Some(checksum), Some(kind)) = (fields.number(), fields.checksum(), fields.byte()) else {
        return Ok(None);
    };
    if kind == 0 { Ok(Some((number, checksum))) } else { Err(is_damaged(path)) }
}

/// The numbers of the tables in a list, and their checksums.
fn tables(list: &[u8]) -> Option<Vec<(u64, u128)>> {
    let contents = sfa::Reader::from_reader(&mut Cursor::new(list)).ok()?;
    let section = contents.toc().section(b"tables")?;
    let mut fields = Fields(list.get(usize::try_from(section.pos()).ok()?..)?);
    let mut tables = Vec::new();
    for _level in 0..fields.byte()? {
        for _run in 0..fields.byte()? {
            for _table in 0..fields.short()? {
                let (number, _kind, checksum, _) =
                    (fields.number()?, fields.byte()?, fields.checksum()?, fields.number()?);
                tables.push((number, checksum));
            }
        }
    }
    Some(tables)
}

fn checksum_of(path: &Path) -> io::Result<u128> {
    let (mut file, mut hasher) = (File::open(path)?, Xxh3Default::new());
    let mut bytes = vec![0; READ_BYTES];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(hasher.digest128()),
            count => hasher.update(&bytes[..count]),
        }
    }
}

/// What was read of a file; `None` if the file is missing.
fn if_present<T>(path: &Path, read: io::Result<T>) -> Result<Option<T>, String> {
    match read {
        Ok(content) => Ok(Some(content)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(cannot_read(path, &error)),
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

fn is_damaged(path: &Path) -> String {
    format!("it is damaged: {} does not match its checksum", path.display())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Keyspaces;
    use super::*;

    /// Makes a database, closes it, and returns all files of its lists and tables, with `current` of each keyspace.
    fn make_database(directory: &Path) -> Vec<PathBuf> {
        let keyspaces = Keyspaces::open(directory).unwrap();
        for number in 0..100_u64 {
            keyspaces.state.insert(format!("key {number}"), [7; 100]).unwrap();
        }
        keyspaces.state.rotate_memtable_and_wait().unwrap();
        drop(keyspaces);
        let mut files = Vec::new();
        for keyspace in fs::read_dir(directory.join("fjall/keyspaces")).unwrap() {
            let keyspace = keyspace.unwrap().path();
            let (number, _) = current(&keyspace.join("current")).unwrap().unwrap();
            let list = keyspace.join(format!("v{number}"));
            let tables = tables(&fs::read(&list).unwrap()).unwrap();
            files.extend(tables.iter().map(|(number, _)| keyspace.join("tables").join(number.to_string())));
            files.extend([keyspace.join("current"), list]);
        }
        files
    }

    #[test]
    fn every_bit_of_lists_and_tables_is_verified() {
        let directory = tempfile::tempdir().unwrap();
        let files = make_database(directory.path());
        assert!(files.iter().any(|file| file.parent().unwrap().ends_with("tables")), "{files:?}");
        let fjall = directory.path().join("fjall");
        check_tables(&fjall).unwrap();
        for file in files {
            let whole = fs::read(&file).unwrap();
            // The first eight bytes of `current` name a list, which is then another one or missing.
            let first = if file.ends_with("current") { 8 } else { 0 };
            for place in first..whole.len() {
                let mut damaged = whole.clone();
                damaged[place] ^= 1 << (place % 8);
                fs::write(&file, damaged).unwrap();
                let why = check_tables(&fjall).unwrap_err();
                assert!(why.starts_with("it is damaged: "), "byte {place} of {}: {why}", file.display());
            }
            fs::write(&file, whole).unwrap();
        }
        check_tables(&fjall).unwrap();
    }

    #[test]
    fn a_table_in_no_list_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let files = make_database(directory.path());
        let table = files.iter().find(|file| file.parent().unwrap().ends_with("tables")).unwrap();
        fs::write(table.with_file_name("999"), b"the beginning of a table whose writer was killed").unwrap();
        check_tables(&directory.path().join("fjall")).unwrap();
        assert!(Keyspaces::open(directory.path()).is_ok());
    }
}
