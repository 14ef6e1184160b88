//! The pickle machine, which reads a pickle as data: it imports nothing and calls nothing.
//!
//! All opcodes of protocols 0 to 5 are read but those that need Python (the registry of extensions and buffers outside
//! the pickle). An opcode adds a bounded number of values, and strings and bytes stay in the file. So memory is
//! bounded, whatever the pickle says: 128 bytes an opcode on average, and [`MAX_OPCODES`]. Source: the comments of
//! CPython's `pickletools`.

use std::borrow::Cow;
use std::collections::HashMap;

use super::input::Input;
use super::value::{Graph, Id, Object, Value};

/// The most opcodes of a pickle. A checkpoint of 1000 tensors with an optimizer's state has 150,000.
const MAX_OPCODES: usize = 1 << 21;

/// Reads the first pickle of `bytes`: the value that it leaves, and how long it is.
///
/// # Errors
/// Damage, a pickle that is longer than any checkpoint's, and what only Python can read.
pub(super) fn load<'a>(bytes: &'a [u8]) -> Result<(Graph<'a>, Id, usize), String> {
    let mut machine = Machine {
        input: Input::new(bytes),
        graph: Graph::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    for _ in 0..MAX_OPCODES {
        let at = machine.input.at();
        let done = machine.step().map_err(|fault| match fault {
            Fault::Damage => format!("a damaged pickle (at its byte {at}); download it again"),
            Fault::Python(what) => format!("the pickle has {what}, which only Python can read; {}", super::SAVE_AGAIN),
        })?;
        if let Some(id) = done {
            return Ok((machine.graph, id, machine.input.at()));
        }
    }
    let cure = "save the state dict alone: torch.save(model.state_dict(), ...)";
    Err(format!("the pickle has more than {MAX_OPCODES} operations; {cure}"))
}

/// Why a pickle can not be read.
enum Fault {
    Damage,
    Python(&'static str),
}

struct Machine<'a> {
    input: Input<'a>,
    graph: Graph<'a>,
    stack: Vec<Id>,
    /// Lengths of the stack where marks are.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Runs one opcode; the value at the end of the pickle.
    fn step(&mut self) -> Result<Option<Id>, Fault> {
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
                self.push(value);
            }
        }
        Ok(None)
    }

    fn push(&mut self, value: Value<'a>) {
        let id = self.graph.add(value);
        self.stack.push(id);
    }

    /// The top of the stack, but not what is below a mark.
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
                (callable, self.graph.add(Value::Tuple(args)))
            }
            b'o' => {
                let mut args = self.pop_mark()?;
                if args.is_empty() {
                    return Err(Fault::Damage);
                }
                let callable = args.remove(0);
                (callable, self.graph.add(Value::Tuple(args)))
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
        self.push(Value::Object(Box::new(Object { callable, args, items: Vec::new(), state: None })));
        Ok(())
    }

    /// Names of classes and functions, and things outside the pickle.
    fn references(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            b'c' => {
                let id = self.named_global()?;
                self.stack.push(id);
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                self.push(Value::Global { module, name });
            }
            b'P' => {
                let name = self.line()?;
                let id = self.graph.add(Value::Str(Cow::Borrowed(name)));
                self.push(Value::Persistent(id));
            }
            _ => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
        }
        Ok(())
    }

    /// The global whose module and name are on the next two lines.
    fn named_global(&mut self) -> Result<Id, Fault> {
        let (module, name) = (self.line()?, self.line()?);
        let module = self.graph.add(Value::Str(Cow::Borrowed(module)));
        let name = self.graph.add(Value::Str(Cow::Borrowed(name)));
        Ok(self.graph.add(Value::Global { module, name }))
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
        self.push(value);
        Ok(())
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

    /// Numbers, strings and bytes. `None` where the pickle ends early, and for what is no opcode.
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
                Value::Str(String::from_utf8_lossy(input.take(len.into())?))
            }
            b'X' => {
                let len = input.u32()?;
                Value::Str(String::from_utf8_lossy(input.take(len as usize)?))
            }
            0x8d => Value::Str(String::from_utf8_lossy(input.counted_u64()?)),
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
                python2(input.take(len.into())?)
            }
            b'T' => {
                let len = usize::try_from(input.u32()?.cast_signed()).ok()?;
                python2(input.take(len)?)
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

/// A string of Python 2, which may be text or not.
fn python2(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), |text| Value::Str(Cow::Borrowed(text)))
}

/// The values that protocol 0 writes as a line of text.
fn written(opcode: u8, line: &[u8]) -> Option<Value<'_>> {
    let text = std::str::from_utf8(line).ok();
    Some(match opcode {
        b'I' if line == b"00" => Value::Bool(false),
        b'I' if line == b"01" => Value::Bool(true),
        b'I' | b'L' => {
            let digits = text?.strip_suffix('L').or(text)?;
            digits.parse().map_or(Value::Bytes(line), Value::Int)
        }
        b'F' => Value::Float(text?.parse().ok()?),
        // A quoted string; torch.save's own strings have no escapes.
        b'S' => python2(line.get(1..line.len().checked_sub(1)?)?),
        // Text in Latin-1 with escapes, which names of tensors do not have.
        _ => Value::Str(text.map_or_else(|| line.iter().map(|b| char::from(*b)).collect(), Cow::Borrowed)),
    })
}
