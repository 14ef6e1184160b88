//! The pickle machine, which reads a pickle as data: it imports nothing and calls nothing.
//!
//! All opcodes of protocols 0 to 5 are read but those that need Python (the registry of extensions and buffers outside
//! the pickle). Strings and bytes stay in the file. [`Budget`] bounds the memory, whatever the pickle says. Source: the
//! comments of CPython's `pickletools`.

use std::collections::HashMap;

use super::input::Input;
use super::value::{Graph, Id, Object, Value};

/// The most operations and values of a file's pickles. A checkpoint of 1000 tensors with an optimizer's state has
/// 150,000 operations.
const MAX_OPERATIONS: usize = 1 << 21;
const MAX_VALUES: usize = 1 << 20;

/// What the pickles of one file may still do.
///
/// That bounds their memory by 256 MiB. A value has 32 bytes, 96 while their list grows; an [`Object`] has 40 more.
/// An operation leaves at most 27 bytes in the memo while it grows, or 24 among the marks, or 12 on the stack, or 16 in
/// a list or dict.
pub(super) struct Budget {
    operations: usize,
    values: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { operations: MAX_OPERATIONS, values: MAX_VALUES }
    }
}

/// Takes one of the number `left`.
fn spend(left: &mut usize, fault: Fault) -> Result<(), Fault> {
    *left = left.checked_sub(1).ok_or(fault)?;
    Ok(())
}

/// Reads the first pickle of `bytes`: the value that it leaves, and how long it is.
///
/// # Errors
/// Damage, pickles that are longer than any checkpoint's, and parts that only Python can read.
pub(super) fn load<'a>(bytes: &'a [u8], budget: &mut Budget) -> Result<(Graph<'a>, Id, usize), String> {
    let mut machine = Machine {
        input: Input::new(bytes),
        graph: Graph::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        budget,
    };
    let cure = "save the state dict alone: torch.save(model.state_dict(), ...)";
    loop {
        let at = machine.input.at();
        let done = machine.step().map_err(|fault| match fault {
            Fault::Damage => format!("a damaged pickle (at its byte {at}); download it again"),
            Fault::Python(what) => format!("the pickle has {what}, which only Python can read; {}", super::SAVE_AGAIN),
            Fault::Operations => format!("the pickle has more than {MAX_OPERATIONS} operations; {cure}"),
            Fault::Values => format!("the pickle has more than {MAX_VALUES} values; {cure}"),
        })?;
        if let Some(id) = done {
            return Ok((machine.graph, id, machine.input.at()));
        }
    }
}

/// Why a pickle can not be read.
enum Fault {
    Damage,
    Python(&'static str),
    Operations,
    Values,
}

struct Machine<'a, 'b> {
    input: Input<'a>,
    graph: Graph<'a>,
    stack: Vec<Id>,
    /// Lengths of the stack where marks are.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    budget: &'b mut Budget,
}

impl<'a> Machine<'a, '_> {
    /// Runs one opcode; the value at the end of the pickle.
    fn step(&mut self) -> Result<Option<Id>, Fault> {
        spend(&mut self.budget.operations, Fault::Operations)?;
        let opcode = self.input.u8().ok_or(Fault::Damage)?;
        match opcode {
            b'.' => return self.pop().map(Some),
            b'R' | 0x81 | 0x92 | b'i' | b'o' | b'b' => self.objects(opcode)?,
            b'c' | 0x93 | b'P' | b'Q' => self.references(opcode)?,
            b'(' | b'0' | b'1' | b'2' | 0x80 | 0x95 => self.structure(opcode)?,
            b'p' | b'q' | b'r' | b'g' | b'h' | b'j' | 0x94 => self.memory(opcode)?,
            b']' | b')' | b'}' | 0x8f | b'l' | b't' | b'd' | 0x85..=0x87 | 0x91 => self.containers(opcode)?,
            b'a' | b'e' | b's' | b'u' | 0x90 => self.additions(opcode)?,
            0x82..=0x84 => return Err(Fault::Python("an extension's code")),
            0x97 | 0x98 => return Err(Fault::Python("a buffer outside of it")),
            _ => {
                let value = self.scalar(opcode).ok_or(Fault::Damage)?;
                self.push(value)?;
            }
        }
        Ok(None)
    }

    fn add(&mut self, value: Value<'a>) -> Result<Id, Fault> {
        spend(&mut self.budget.values, Fault::Values)?;
        Ok(self.graph.add(value))
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), Fault> {
        let id = self.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    /// The top of the stack, but no value below a mark.
    fn pop(&mut self) -> Result<Id, Fault> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() > bottom { self.stack.pop().ok_or(Fault::Damage) } else { Err(Fault::Damage) }
    }

    /// What is above the last mark, which goes, too.
    fn pop_mark(&mut self) -> Result<Vec<Id>, Fault> {
        let mark = self.marks.pop().ok_or(Fault::Damage)?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<Id, Fault> {
        self.stack.last().copied().ok_or(Fault::Damage)
    }

    fn line(&mut self) -> Result<&'a str, Fault> {
        self.input.line().and_then(|line| std::str::from_utf8(line).ok()).ok_or(Fault::Damage)
    }

    /// Calls: a placeholder remembers what would have been called, with what.
    fn objects(&mut self, opcode: u8) -> Result<(), Fault> {
        let (callable, args) = match opcode {
            b'b' => {
                let state = self.pop()?;
                let id = self.top()?;
                // Values that are no placeholders have no attributes that we read.
                if let Value::Object(object) = self.graph.get_mut(id) {
                    object.state = Some(state);
                }
                return Ok(());
            }
            b'i' => {
                let callable = self.named_global()?;
                let args = self.pop_mark()?;
                (callable, self.add(Value::Tuple(args))?)
            }
            b'o' => {
                let mut args = self.pop_mark()?;
                if args.is_empty() {
                    return Err(Fault::Damage);
                }
                let callable = args.remove(0);
                (callable, self.add(Value::Tuple(args))?)
            }
            _ => {
                if opcode == 0x92 {
                    // Arguments by name: of classes that we do not know anyway.
                    self.pop()?;
                }
                let args = self.pop()?;
                (self.pop()?, args)
            }
        };
        self.push(Value::Object(Box::new(Object { callable, args, items: Vec::new(), state: None })))
    }

    /// Names of classes and functions, and things outside the pickle.
    fn references(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            b'c' => {
                let id = self.named_global()?;
                self.stack.push(id);
                Ok(())
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                self.push(Value::Global { module, name })
            }
            b'P' => {
                let name = self.line()?;
                let id = self.add(Value::Str(name))?;
                self.push(Value::Persistent(id))
            }
            _ => {
                let id = self.pop()?;
                self.push(Value::Persistent(id))
            }
        }
    }

    /// The global whose module and name are on the next two lines.
    fn named_global(&mut self) -> Result<Id, Fault> {
        let (module, name) = (self.line()?, self.line()?);
        let (module, name) = (self.add(Value::Str(module))?, self.add(Value::Str(name))?);
        self.add(Value::Global { module, name })
    }

    /// Opcodes that make no value.
    fn structure(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            b'(' => self.marks.push(self.stack.len()),
            // Takes a mark off where one is on top.
            b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(self.top()?),
            // The protocol's number, and the length of a frame.
            0x80 => drop(self.input.take(1).ok_or(Fault::Damage)?),
            _ => drop(self.input.take(8).ok_or(Fault::Damage)?),
        }
        Ok(())
    }

    /// The memo.
    fn memory(&mut self, opcode: u8) -> Result<(), Fault> {
        let key = match opcode {
            b'p' | b'g' => self.line()?.parse().ok(),
            b'q' | b'h' => self.input.u8().map(u32::from),
            b'r' | b'j' => self.input.u32(),
            _ => Some(self.memo.len() as u32),
        };
        let key = key.ok_or(Fault::Damage)?;
        if matches!(opcode, b'g' | b'h' | b'j') {
            self.stack.push(*self.memo.get(&key).ok_or(Fault::Damage)?);
        } else {
            self.memo.insert(key, self.top()?);
        }
        Ok(())
    }

    /// New lists, tuples, dicts and sets.
    fn containers(&mut self, opcode: u8) -> Result<(), Fault> {
        let value = match opcode {
            b']' => Value::List(Vec::new()),
            b')' => Value::Tuple(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            0x8f => Value::Opaque,
            b'l' => Value::List(self.pop_mark()?),
            b't' => Value::Tuple(self.pop_mark()?),
            b'd' => Value::Dict(pairs(&self.pop_mark()?)?),
            0x91 => {
                self.pop_mark()?;
                Value::Opaque
            }
            _ => {
                let mut ids = vec![0; usize::from(opcode - 0x84)];
                for id in ids.iter_mut().rev() {
                    *id = self.pop()?;
                }
                Value::Tuple(ids)
            }
        };
        self.push(value)
    }

    /// Additions to the list, dict or set below them.
    fn additions(&mut self, opcode: u8) -> Result<(), Fault> {
        let added = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let id = self.top()?;
        match (opcode, self.graph.get_mut(id)) {
            (b'a' | b'e', Value::List(list)) => list.extend(added),
            (b's' | b'u', Value::Dict(items)) => items.extend(pairs(&added)?),
            (b's' | b'u', Value::Object(object)) => object.items.extend(pairs(&added)?),
            // The contents of sets and of lists of other classes are not read.
            (b'a' | b'e', Value::Object(_)) | (0x90, Value::Opaque) => {}
            _ => return Err(Fault::Damage),
        }
        Ok(())
    }

    /// Numbers, strings and bytes. `None` where the pickle ends early, and for bytes that are no opcode.
    fn scalar(&mut self, opcode: u8) -> Option<Value<'a>> {
        let input = &mut self.input;
        Some(match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(input.u8()?.into()),
            b'M' => Value::Int(input.u16()?.into()),
            b'J' => Value::Int(input.u32()?.cast_signed().into()),
            0x8a => {
                let len = input.u8()?;
                integer(input.take(len.into())?)
            }
            0x8b => {
                let len = usize::try_from(input.u32()?.cast_signed()).ok()?;
                integer(input.take(len)?)
            }
            b'G' => Value::Float(input.f64_be()?),
            0x8c => {
                let len = input.u8()?;
                text(input.take(len.into())?)
            }
            b'X' => {
                let len = input.u32()?;
                text(input.take(len as usize)?)
            }
            0x8d => text(input.counted_u64()?),
            b'C' => {
                let len = input.u8()?;
                Value::Bytes(input.take(len.into())?)
            }
            b'B' => {
                let len = input.u32()?;
                Value::Bytes(input.take(len as usize)?)
            }
            0x8e | 0x96 => Value::Bytes(input.counted_u64()?),
            b'U' => {
                let len = input.u8()?;
                text(input.take(len.into())?)
            }
            b'T' => {
                let len = usize::try_from(input.u32()?.cast_signed()).ok()?;
                text(input.take(len)?)
            }
            b'I' | b'L' | b'F' | b'S' | b'V' => written(opcode, input.line()?)?,
            _ => return None,
        })
    }
}

/// Keys and values in turns.
fn pairs(ids: &[Id]) -> Result<Vec<(Id, Id)>, Fault> {
    let (pairs, rest) = ids.as_chunks::<2>();
    if rest.is_empty() { Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()) } else { Err(Fault::Damage) }
}

/// An integer in two's complement, the lowest byte first.
fn integer(bytes: &[u8]) -> Value<'_> {
    if bytes.len() > 8 {
        return Value::Bytes(bytes);
    }
    let sign = if bytes.last().is_some_and(|b| *b >= 0x80) { 0xff } else { 0 };
    let mut wide = [sign; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// A string. Those of Python 2, and those with halves of characters, need not be UTF-8; no name of a tensor is so.
fn text(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Str)
}

/// The values that protocol 0 writes as a line of text.
fn written(opcode: u8, line: &[u8]) -> Option<Value<'_>> {
    let number = std::str::from_utf8(line);
    Some(match opcode {
        b'I' if line == b"00" => Value::Bool(false),
        b'I' if line == b"01" => Value::Bool(true),
        b'I' | b'L' => {
            let digits = number.ok()?;
            digits.strip_suffix('L').unwrap_or(digits).parse().map_or(Value::Bytes(line), Value::Int)
        }
        b'F' => Value::Float(number.ok()?.parse().ok()?),
        // A quoted string; torch.save's own strings have no escapes.
        b'S' => text(line.get(1..line.len().checked_sub(1)?)?),
        // Text in Latin-1 with escapes, which names of tensors do not have.
        _ => text(line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pickles_of_a_file_share_their_limits() {
        let objects = [&b"\x80\x02N"[..], &b"(i\n\n".repeat(MAX_VALUES / 9), b"."].concat();
        let mut budget = Budget::default();
        let (graph, ..) = load(&objects, &mut budget).expect("within the limit");
        assert_eq!(graph.values().count(), 1 + 5 * (MAX_VALUES / 9));
        let why = load(&objects, &mut budget).expect_err("more than is left of it");
        assert!(why.contains("more than 1048576 values; save the state dict alone"), "{why}");
        let marks = b"(".repeat(MAX_OPERATIONS);
        assert!(load(&marks, &mut Budget::default()).expect_err("too many").contains("more than 2097152 operations"));
    }

    #[test]
    fn sizes_are_those_that_the_bound_counts_with() {
        assert!(size_of::<Value>() <= 32 && size_of::<Object>() <= 40);
    }

    #[test]
    fn strings_stay_in_the_file() {
        let (graph, id, _) = load(b"\x80\x02X\x03\x00\x00\x00a\xffb.", &mut Budget::default()).expect("a pickle");
        assert!(matches!(graph.get(id), Value::Bytes(b"a\xffb")));
        let (graph, id, _) = load(b"V\xe9\n.", &mut Budget::default()).expect("a pickle");
        assert!(matches!(graph.get(id), Value::Bytes(b"\xe9")));
    }
}
