//! The catalog file that the configuration names, read again whenever it has changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use klp_livepatch::catalog::{Catalog, MAX_FILE};

/// Clones are handles to the same file.
#[derive(Clone)]
pub struct CatalogFile(Arc<Inner>);

struct Inner {
    path: Option<PathBuf>,
    read: Mutex<Option<(SystemTime, Arc<Catalog>)>>,
}

impl CatalogFile {
    /// `None`: there is no catalog, which is an empty one.
    pub fn new(path: Option<PathBuf>) -> Self {
        let read = Mutex::new(None);
        Self(Arc::new(Inner { path, read }))
    }

    /// The catalog as the file has it now. Reads a file: to be called aside.
    ///
    /// # Errors
    /// The file can't be read or is no catalog; with its path and the line.
    pub fn now(&self) -> Result<Arc<Catalog>, String> {
        let Some(path) = &self.0.path else {
            return Ok(Arc::default());
        };
        let changed = std::fs::metadata(path).and_then(|file| file.modified());
        let changed = changed.map_err(|error| unreadable(path, &error))?;
        let mut read = self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, catalog)) = &*read
            && *when == changed
        {
            return Ok(Arc::clone(catalog));
        }
        let catalog = Arc::new(parse(path)?);
        *read = Some((changed, Arc::clone(&catalog)));
        Ok(catalog)
    }
}

fn parse(path: &Path) -> Result<Catalog, String> {
    let size = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if size > MAX_FILE as u64 {
        return Err(format!(
            "the catalog {} has {size} bytes; at most {MAX_FILE}",
            path.display()
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Catalog::parse(&text).map_err(|error| format!("the catalog {}: {error}", path.display()))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("can't read the catalog {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supported.csv");
        let header = "Update ID,Maintenance Project,Kernel version,Supported until,LTSS until\n";
        let row = "SLE15-SP6_Update_16,SUSE:Maintenance:41020,6.4.0-150600.23.73.1,2025-12-31,2026-11-15\n";
        std::fs::write(&path, header.to_owned() + row).unwrap();
        let file = CatalogFile::new(Some(path.clone()));
        assert_eq!(file.now().unwrap().len(), 1);
        std::fs::write(&path, header).unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert!(file.now().unwrap().is_empty());
        std::fs::write(&path, "nonsense").unwrap();
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(later + std::time::Duration::from_secs(5))
            .unwrap();
        assert!(file.now().unwrap_err().contains("supported.csv"));
        assert!(CatalogFile::new(None).now().unwrap().is_empty());
    }
}
