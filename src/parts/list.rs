//! All tensors of a network, in the order of the file.

use crate::config::{Config, Precision};
use crate::lanes::{channels, pad16};
use crate::layout::{DType, Kept, TensorSpec, k8};
use crate::parts::{Axis, Branch, Scope, Walk};

/// Hands each tensor to a function, which may end the walk.
pub struct List<'c, 'k, V> {
    config: &'c Config,
    precision: Precision,
    kept: Kept<'k>,
    scope: Scope,
    visit: V,
}

impl<'c, 'k, V> List<'c, 'k, V> {
    /// Calls `visit` with every tensor.
    pub fn new(config: &'c Config, kept: Kept<'k>, visit: V) -> Self {
        Self { config, precision: config.precision, kept, scope: Scope::Network, visit }
    }
}

/// What is called most is out of line: bytes count on bare metal.
impl<E, V: FnMut(TensorSpec) -> Result<(), E>> List<'_, '_, V> {
    fn put(&mut self, name: &str, leaf: &str, dtype: DType, dims: &[usize]) -> Result<(), E> {
        (self.visit)(TensorSpec::new(self.scope.name(name, leaf), dtype, dims))
    }

    #[inline(never)]
    fn padded(&mut self, name: &str, leaf: &str, dtype: DType, n: usize) -> Result<(), E> {
        self.put(name, leaf, dtype, &[pad16(n)])
    }

    /// What stands beside a matrix of `n` outputs.
    #[inline(never)]
    fn beside(&mut self, name: &str, n: usize) -> Result<(), E> {
        if self.precision != Precision::F32 {
            self.padded(name, ".scale", DType::F32, n)?;
        }
        if self.precision == Precision::Int8 {
            self.padded(name, ".sum", DType::I32, n)?;
        }
        self.padded(name, ".bias", DType::F32, n)
    }

    #[inline(never)]
    fn matrix(&mut self, name: &str, n: usize, k: usize) -> Result<(), E> {
        let blocks = pad16(n) / 16;
        match self.precision {
            Precision::Int8 => self.put(name, ".weight", DType::I8, &[4, 16, k8(k) / 4, blocks])?,
            Precision::F16 => self.put(name, ".weight", DType::F16, &[16, k, blocks])?,
            Precision::F32 => self.put(name, ".weight", DType::F32, &[16, k, blocks])?,
        }
        self.beside(name, n)
    }
}

impl<E, V: FnMut(TensorSpec) -> Result<(), E>> Walk for List<'_, '_, V> {
    type Storage = ();
    type Error = E;

    fn enter(&mut self, scope: Scope) {
        self.scope = scope;
    }

    fn stored_as(&mut self, precision: Precision) {
        self.precision = precision;
    }

    fn vector(&mut self, name: &str, n: usize, _: &mut ()) -> Result<(), E> {
        self.padded(name, "", DType::F32, n)
    }

    #[inline(never)]
    fn table(&mut self, name: &str, rows: usize, n: usize, _: &mut ()) -> Result<(), E> {
        self.put(name, "", DType::F32, &[pad16(n), rows])
    }

    #[inline(never)]
    fn norm(&mut self, name: &str, n: usize, _: &mut ()) -> Result<(), E> {
        self.padded(name, ".weight", DType::F32, n)?;
        self.padded(name, ".bias", DType::F32, n)
    }

    fn linear(&mut self, name: &str, outputs: Axis, inputs: Axis, _: &mut ()) -> Result<(), E> {
        self.matrix(name, outputs.stored(), inputs.stored())
    }

    fn branch_end(
        &mut self,
        name: &str,
        branch: Branch,
        dim: usize,
        inputs: Axis,
        _: &mut (),
        _: Option<&()>,
    ) -> Result<(), E> {
        let rows = self.kept.mask(self.config, branch.block, branch.branch).map_or(dim, channels);
        self.matrix(name, rows, inputs.stored())
    }

    fn depthwise(&mut self, name: &str, n: usize, kernel: usize, _: &mut ()) -> Result<(), E> {
        self.put(name, ".weight", DType::F32, &[pad16(n), kernel * kernel])?;
        self.padded(name, ".bias", DType::F32, n)
    }

    /// Row by row, since it is multiplied from the left.
    fn mixer(&mut self, name: &str, tokens: usize, dim: usize, _: &mut ()) -> Result<(), E> {
        let dtype = match self.precision {
            Precision::Int8 => DType::I8,
            Precision::F16 => DType::F16,
            Precision::F32 => DType::F32,
        };
        self.put(name, ".weight", dtype, &[pad16(tokens), tokens])?;
        self.beside(name, tokens)?;
        self.padded(name, ".row_sum", DType::F32, tokens)?;
        [".factor", ".offset", ".bias_factor"].into_iter().try_for_each(|leaf| self.padded(name, leaf, DType::F32, dim))
    }
}
