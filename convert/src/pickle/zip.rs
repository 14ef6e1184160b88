//! The zip container of torch.save: where each entry's bytes are in the file.
//!
//! PyTorch stores entries as they are, so an entry is a range of the file and nothing is unpacked. Zip64 is read, since
//! large checkpoints need it. Checksums are not compared: torch.save can leave them out. Source: PKWARE's APPNOTE 6.3.

use std::collections::BTreeMap;
use std::ops::Range;

use super::input::Input;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;

/// Sizes of the records without their names, extra fields and comments.
const LOCAL_LEN: usize = 30;
const END_LEN: usize = 22;
const LOCATOR_64_LEN: usize = 20;

/// The extra field for numbers that do not fit 32 bits.
const EXTRA_64: u16 = 1;
/// Compressed entries as they are in torch.save's archives. `FILE` stands for the file's name.
const STORE: &str = "store it again: python -c \"import zipfile; a = zipfile.ZipFile('FILE'); b = \
                     zipfile.ZipFile('again.pth', 'w'); [b.writestr(n, a.read(n)) for n in a.namelist()]; b.close()\"";

/// An entry with a password.
const ENCRYPTED: u16 = 1;

/// The directory of an archive.
#[derive(Debug)]
pub(super) struct Zip {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    bytes: Range<usize>,
    /// Compressed or encrypted; `bytes` are not its content.
    packed: bool,
}

/// Where the directory is.
struct Directory {
    bytes: Range<usize>,
    count: u64,
}

impl Zip {
    /// Reads the directory of the archive `file`.
    ///
    /// # Errors
    /// Not a whole archive, an entry outside the file, two entries of one name.
    pub(super) fn open(file: &[u8]) -> Result<Self, String> {
        let directory = Directory::find(file)?;
        let mut input = Input::new(&file[directory.bytes.clone()]);
        let mut entries = BTreeMap::new();
        for _ in 0..directory.count {
            let (name, entry) = entry(file, directory.bytes.start, &mut input)
                .map_err(|why| format!("a damaged zip archive ({why}); download it again"))?;
            if entries.contains_key(&name) {
                return Err(format!(
                    "the archive has two entries named {}; download it again",
                    crate::error::shown(&name)
                ));
            }
            entries.insert(name, entry);
        }
        Ok(Self { entries })
    }

    /// The names of all entries, in alphabetical order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where the bytes of an entry are, if it is there.
    ///
    /// # Errors
    /// A compressed or encrypted entry.
    pub(super) fn get(&self, name: &str) -> Result<Option<Range<usize>>, String> {
        match self.entries.get(name) {
            Some(entry) if entry.packed => {
                let name = crate::error::shown(name);
                Err(format!("entry {name} is compressed or encrypted, which torch.save never does; {STORE}"))
            }
            entry => Ok(entry.map(|entry| entry.bytes.clone())),
        }
    }
}

impl Directory {
    fn find(file: &[u8]) -> Result<Self, String> {
        let truncated = || "the end of the zip archive is missing; download it again".to_owned();
        // A comment of at most 65535 bytes follows the record.
        let first = file.len().saturating_sub(END_LEN + usize::from(u16::MAX));
        let last = file.len().checked_sub(END_LEN).ok_or_else(truncated)?;
        let is_end = |at: &usize| {
            let comment = u16::from_le_bytes([file[at + 20], file[at + 21]]);
            file[*at..].starts_with(&END.to_le_bytes()) && at + END_LEN + usize::from(comment) == file.len()
        };
        let at = (first..=last).rev().find(is_end).ok_or_else(truncated)?;
        Self::read(file, at).ok_or_else(|| "the directory of the zip archive is damaged; download it again".to_owned())
    }

    /// The record at `at`, and the one for large archives if it is before it.
    fn read(file: &[u8], at: usize) -> Option<Self> {
        let mut end = Input::new(file.get(at + 4..)?);
        end.take(4)?;
        end.take(2)?;
        let mut count = u64::from(end.u16()?);
        let mut len = u64::from(end.u32()?);
        let mut start = u64::from(end.u32()?);
        let locator = at.checked_sub(LOCATOR_64_LEN).map(|at| &file[at..]);
        if let Some(locator) = locator.filter(|bytes| bytes.starts_with(&LOCATOR_64.to_le_bytes())) {
            let record = usize::try_from(Input::new(&locator[8..]).u64()?).ok()?;
            let mut large = Input::new(file.get(record..)?);
            if large.u32()? != END_64 {
                return None;
            }
            // Its length, versions, disk numbers and the count on this disk.
            large.take(28)?;
            (count, len, start) = (large.u64()?, large.u64()?, large.u64()?);
        }
        let start = usize::try_from(start).ok()?;
        let bytes = start..start.checked_add(usize::try_from(len).ok()?)?;
        (bytes.end <= at).then_some(Self { bytes, count })
    }
}

/// The next entry of the directory, which starts at `directory` in the file.
fn entry(file: &[u8], directory: usize, input: &mut Input<'_>) -> Result<(String, Entry), String> {
    let short = || "its directory ends early".to_owned();
    let mut fixed = Input::new(input.take(46).ok_or_else(short)?);
    let fields = (|| {
        let signature = fixed.u32()?;
        fixed.take(4)?;
        let (flags, method) = (fixed.u16()?, fixed.u16()?);
        fixed.take(8)?;
        let (packed_len, len) = (fixed.u32()?, fixed.u32()?);
        let lens = [fixed.u16()?, fixed.u16()?, fixed.u16()?].map(usize::from);
        fixed.take(8)?;
        Some((signature, flags, method, packed_len, len, lens, fixed.u32()?))
    })();
    let (signature, flags, method, packed_len, len, [name_len, extra_len, comment_len], at) =
        fields.ok_or_else(short)?;
    if signature != CENTRAL {
        return Err("its directory has something else in it".to_owned());
    }
    let name = input.take(name_len).ok_or_else(short)?;
    let extra = input.take(extra_len).ok_or_else(short)?;
    input.take(comment_len).ok_or_else(short)?;
    let text = String::from_utf8_lossy(name).into_owned();
    let outside = || format!("entry {} is outside the file", crate::error::shown(&text));

    let large = large_fields(extra, [len, packed_len, at]).ok_or_else(outside)?;
    let [len, packed_len, at] = large.map(usize::try_from);
    let (len, packed_len, at) =
        (len.map_err(|_| outside())?, packed_len.map_err(|_| outside())?, at.map_err(|_| outside())?);
    let start = local_data(file, at, name).ok_or_else(outside)?;
    let end = start.checked_add(packed_len).filter(|end| *end <= directory).ok_or_else(outside)?;
    let packed = method != 0 || flags & ENCRYPTED != 0;
    if !packed && len != packed_len {
        return Err(format!("entry {} has two lengths", crate::error::shown(&text)));
    }
    Ok((text, Entry { bytes: start..end, packed }))
}

/// The sizes and the offset of an entry: numbers of all ones are in the extra field, in this order.
fn large_fields(extra: &[u8], small: [u32; 3]) -> Option<[u64; 3]> {
    let mut fields = Input::new(extra);
    let mut large = Input::new(&[]);
    while let (Some(kind), Some(len)) = (fields.u16(), fields.u16()) {
        let bytes = fields.take(len.into())?;
        if kind == EXTRA_64 {
            large = Input::new(bytes);
        }
    }
    let mut all = [0; 3];
    for (value, small) in all.iter_mut().zip(small) {
        *value = if small == u32::MAX { large.u64()? } else { small.into() };
    }
    Some(all)
}

/// Where the data of the entry with a local header at `at` starts.
fn local_data(file: &[u8], at: usize, name: &[u8]) -> Option<usize> {
    let header = file.get(at..)?.get(..LOCAL_LEN)?;
    let mut lens = Input::new(&header[26..]);
    let (name_len, extra_len) = (usize::from(lens.u16()?), usize::from(lens.u16()?));
    let after = at + LOCAL_LEN;
    let same = header.starts_with(&LOCAL.to_le_bytes()) && file.get(after..after + name_len)? == name;
    same.then_some(after + name_len + extra_len)
}
