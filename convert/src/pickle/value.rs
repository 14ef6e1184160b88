//! The contents of a pickle as plain data: values refer to each other by number, so sharing copies nothing, and a value
//! that contains itself does no harm.

/// The number of a value in its [`Graph`].
pub(super) type Id = u32;

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    /// Bytes, text that is not UTF-8, and integers of more than 64 bits in two's complement.
    Bytes(&'a [u8]),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// The name of a class or function; `module` and `name` are strings.
    Global {
        module: Id,
        name: Id,
    },
    /// A reference to something outside the pickle: a storage.
    Persistent(Id),
    /// What a call in the pickle would have made. The call is not made.
    Object(Box<Object>),
    /// Sets, whose contents nobody reads.
    Opaque,
}

/// A call that is not made, and the later operations on its result.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) callable: Id,
    pub(super) args: Id,
    /// What a subclass of `dict` got.
    pub(super) items: Vec<(Id, Id)>,
    /// The attributes, or whatever the class keeps.
    pub(super) state: Option<Id>,
}

/// All values of one pickle.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph<'a> {
    values: Vec<Value<'a>>,
}

impl<'a> Graph<'a> {
    /// Adds a value. The caller bounds how many there are.
    pub(super) fn add(&mut self, value: Value<'a>) -> Id {
        self.values.push(value);
        (self.values.len() - 1) as Id
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Value<'a> {
        &mut self.values[id as usize]
    }

    /// All values, in the order of the pickle.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value<'a>> {
        self.values.iter()
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn len(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The elements of a tuple or a list.
    pub(super) fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(ids) | Value::List(ids) => Some(ids),
            _ => None,
        }
    }

    /// Module and name of a class or function.
    pub(super) fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.get(id) {
            Value::Global { module, name } => self.text(*module).zip(self.text(*name)),
            _ => None,
        }
    }

    pub(super) fn object(&self, id: Id) -> Option<&Object> {
        match self.get(id) {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The entries of a dict, or of an object that is one, such as an `OrderedDict`.
    pub(super) fn entries(&self, id: Id) -> &[(Id, Id)] {
        match self.get(id) {
            Value::Dict(items) => items,
            Value::Object(object) => &object.items,
            _ => &[],
        }
    }

    /// The entries of a dict whose keys are strings.
    pub(super) fn items(&self, id: Id) -> impl Iterator<Item = (&str, Id)> {
        self.entries(id).iter().filter_map(|(key, value)| Some((self.text(*key)?, *value)))
    }

    /// The value of a key; the last one where there are several, as in Python.
    pub(super) fn item(&self, id: Id, key: &str) -> Option<Id> {
        self.items(id).filter(|(k, _)| *k == key).last().map(|(_, value)| value)
    }

    /// The dict of an object's attributes.
    pub(super) fn attributes(&self, id: Id) -> Option<Id> {
        let state = self.object(id)?.state?;
        match self.get(state) {
            // With slots, a pair of the attributes and the slots.
            Value::Tuple(pair) => pair.first().copied(),
            _ => Some(state),
        }
    }
}
