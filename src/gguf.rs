//! GGUF v3, read in place: metadata by key and the tensor table, borrowed from the file's bytes.
//!
//! Source: the GGUF specification of the ggml project. Every length is checked before it is used; nothing is
//! allocated; arrays of arrays are refused, so depth is bounded and every step consumes bytes.

use crate::error::Error;
use crate::lanes::ALIGNMENT;

const MAGIC: &[u8; 4] = b"GGUF";

/// A position in the file; every read is checked.
#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8], Error> {
        let n = usize::try_from(n).map_err(|_| Error::Truncated)?;
        let end = self.at.checked_add(n).ok_or(Error::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(Error::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<&'a str, Error> {
        let len = self.u64()?;
        core::str::from_utf8(self.take(len)?).map_err(|_| Error::Malformed("a string is not UTF-8"))
    }

    fn value(&mut self) -> Result<Value<'a>, Error> {
        let kind = self.u32()?;
        Ok(match kind {
            4 => Value::U32(self.u32()?),
            6 => Value::F32(f32::from_bits(self.u32()?)),
            7 => match self.array::<1>()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return Err(Error::Malformed("a boolean is neither 0 nor 1")),
            },
            8 => Value::Str(self.string()?),
            9 => self.array_value()?,
            10 => Value::U64(self.u64()?),
            12 => Value::F64(f64::from_bits(self.u64()?)),
            other => {
                self.take(scalar_bytes(other)?)?;
                Value::Other
            }
        })
    }

    fn array_value(&mut self) -> Result<Value<'a>, Error> {
        let kind = self.u32()?;
        let count = self.u64()?;
        match kind {
            8 => {
                let start = *self;
                for _ in 0..count {
                    self.string()?;
                }
                Ok(Value::Strs(Strs { reader: start, left: count }))
            }
            9 => Err(Error::Malformed("an array of arrays")),
            _ => {
                let bytes = self.take(count.checked_mul(scalar_bytes(kind)?).ok_or(Error::Truncated)?)?;
                Ok(match kind {
                    4 => Value::U32s(bytes.as_chunks().0),
                    6 => Value::F32s(F32s(bytes)),
                    _ => Value::Other,
                })
            }
        }
    }
}

fn scalar_bytes(kind: u32) -> Result<u64, Error> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(Error::Malformed("an unknown metadata type")),
    }
}

/// A metadata value of a type that model files use; all others are skipped as `Other`.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    U32(u32),
    U64(u64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Str(&'a str),
    Strs(Strs<'a>),
    /// Little-endian.
    U32s(&'a [[u8; 4]]),
    F32s(F32s<'a>),
    Other,
}

/// A string array; iterates in order.
#[derive(Clone, Copy)]
pub(crate) struct Strs<'a> {
    reader: Reader<'a>,
    left: u64,
}

impl Strs<'_> {
    pub(crate) fn len(&self) -> u64 {
        self.left
    }
}

impl<'a> Iterator for Strs<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        self.reader.string().ok()
    }
}

/// An f32 array, unaligned.
#[derive(Clone, Copy, Default)]
pub(crate) struct F32s<'a>(&'a [u8]);

impl<'a> F32s<'a> {
    pub(crate) fn len(&self) -> usize {
        self.0.len() / 4
    }

    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = f32> + 'a {
        self.0.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))
    }
}

/// One row of the tensor table.
#[derive(Clone, Copy)]
pub(crate) struct TensorInfo<'a> {
    pub(crate) name: &'a str,
    pub(crate) ggml_type: u32,
    dims: [u64; 4],
    rank: usize,
    /// From the start of the tensor data.
    pub(crate) offset: u64,
}

impl TensorInfo<'_> {
    pub(crate) fn dims(&self) -> &[u64] {
        &self.dims[..self.rank]
    }
}

/// The parts of a GGUF file.
#[derive(Clone, Copy)]
pub(crate) struct File<'a> {
    metadata: Reader<'a>,
    metadata_count: u64,
    table: Reader<'a>,
    tensor_count: u64,
    /// All tensor data, from the first aligned byte after the table.
    pub(crate) data: &'a [u8],
}

/// Where a file's parts stand, for who keeps the bytes elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    metadata_at: usize,
    metadata_count: u64,
    table_at: usize,
    tensor_count: u64,
    data_at: usize,
    len: usize,
}

impl Places {
    /// The file that [`File::places`] was asked of; `None` if `bytes` are not as many.
    pub(crate) fn file<'a>(&self, bytes: &'a [u8]) -> Option<File<'a>> {
        let Self { metadata_count, tensor_count, .. } = *self;
        let reader = |at| Reader { bytes, at };
        let (metadata, table) = (reader(self.metadata_at), reader(self.table_at));
        let data = bytes.get(self.data_at..).filter(|_| bytes.len() == self.len)?;
        Some(File { metadata, metadata_count, table, tensor_count, data })
    }
}

impl<'a> File<'a> {
    /// All of it.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.metadata.bytes
    }

    /// Where its parts stand.
    pub(crate) fn places(&self) -> Places {
        let (len, data_len) = (self.bytes().len(), self.data.len());
        Places {
            metadata_at: self.metadata.at,
            metadata_count: self.metadata_count,
            table_at: self.table.at,
            tensor_count: self.tensor_count,
            data_at: len - data_len,
            len,
        }
    }

    /// Walks header, metadata and tensor table once and checks that they are well-formed.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if !bytes.starts_with(MAGIC) {
            return Err(if MAGIC.starts_with(bytes) && !bytes.is_empty() { Error::Truncated } else { Error::NotGguf });
        }
        let mut r = Reader { bytes, at: MAGIC.len() };
        let version = r.u32()?;
        if version != 3 {
            return Err(Error::GgufVersion(version));
        }
        let tensor_count = r.u64()?;
        let metadata_count = r.u64()?;
        let metadata = r;
        for _ in 0..metadata_count {
            r.string()?;
            r.value()?;
        }
        let table = r;
        for _ in 0..tensor_count {
            tensor_info(&mut r)?;
        }
        let data_start = r.at.next_multiple_of(ALIGNMENT);
        let data = bytes.get(data_start..).ok_or(Error::Truncated)?;
        Ok(Self { metadata, metadata_count, table, tensor_count, data })
    }

    /// The first value of that key.
    pub(crate) fn get(&self, key: &str) -> Option<Value<'a>> {
        let mut r = self.metadata;
        for _ in 0..self.metadata_count {
            let name = r.string().ok()?;
            let value = r.value().ok()?;
            if name == key {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn tensors(&self) -> impl Iterator<Item = TensorInfo<'a>> + use<'a> {
        let mut r = self.table;
        (0..self.tensor_count).map_while(move |_| tensor_info(&mut r).ok())
    }
}

fn tensor_info<'a>(r: &mut Reader<'a>) -> Result<TensorInfo<'a>, Error> {
    let name = r.string()?;
    let rank = r.u32()? as usize;
    let mut dims = [1; 4];
    for d in dims.get_mut(..rank).ok_or(Error::Malformed("a tensor of more than 4 dimensions"))? {
        *d = r.u64()?;
    }
    Ok(TensorInfo { name, rank, dims, ggml_type: r.u32()?, offset: r.u64()? })
}
