//! Reads the tables of boards/trees; README.md there explains them. Included by tests and by the `unpack` example.

use std::collections::BTreeMap;
use std::path::Path;

/// Files by their path.
#[derive(Clone)]
pub struct Tree(BTreeMap<String, Vec<u8>>);

#[allow(dead_code, reason = "each user needs a part")]
impl Tree {
    /// The table of that name, without `.txt`.
    pub fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|a| a.join("boards/trees").is_dir()).unwrap();
        Self::parse(&std::fs::read_to_string(path.join(format!("boards/trees/{name}.txt"))).unwrap())
    }

    /// The files of a table.
    pub fn parse(table: &str) -> Self {
        let mut tree = Self(BTreeMap::new());
        for line in table.lines().filter(|line| line.starts_with('/')) {
            let (path, content) = line.split_once(": ").unwrap_or_else(|| panic!("path: content, not {line}"));
            tree.set(path, content);
        }
        tree
    }

    /// Adds or replaces the content of a line `path: content`.
    pub fn set(&mut self, path: &str, content: &str) {
        let end = if content.ends_with("\\0") { "" } else { "\n" };
        let content = content.replace("\\0", "\0").replace("\\n", "\n") + end;
        match path.split_once('[') {
            None => drop(self.0.insert(path.to_string(), content.into_bytes())),
            Some((before, rest)) => {
                let (range, after) = rest.split_once(']').unwrap();
                let (first, last) = range.split_once('-').unwrap();
                for number in first.parse::<u32>().unwrap()..=last.parse().unwrap() {
                    self.0.insert(format!("{before}{number}{after}"), content.clone().into_bytes());
                }
            }
        }
    }

    /// Takes a file away.
    pub fn remove(&mut self, path: &str) {
        assert!(self.0.remove(path).is_some(), "{path}");
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.0.iter()
    }
}

impl vitlet_board::Files for Tree {
    fn read(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let content = self.0.get(path)?.get(offset as usize..)?;
        let len = content.len().min(buffer.len());
        buffer[..len].copy_from_slice(&content[..len]);
        Some(len)
    }
}
