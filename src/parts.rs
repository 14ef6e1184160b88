//! How a network is declared: its parts, in the order of the file, with names and shapes, in one walk.
//!
//! Each struct of parts in [`crate::networks`] and [`crate::heads`] has one function `walk`, the only place that knows
//! names, order and shapes. Every work on all tensors is a [`Walk`]: listing them ([`List`]), cutting them out of a
//! file (`Cut`), counting ([`Count`]), and in the converter packing and reading. A walk goes through parts that are
//! there: it may fill them or read them. [`Storage`] says what they hold.

use core::fmt::{Debug, Write};

mod count;
mod cut;
mod list;

pub use count::{Count, Work};
pub(crate) use cut::{Cut, Depthwise, InFile, Linear, Missing, Mixer, MixerWeight, Norm, Weight};
pub use list::List;

use crate::config::{Config, LayerScale, Precision};
use crate::error::TensorName;
use crate::lanes::pad16;
use crate::profile::Stage;

/// How a part holds its tensors: as slices of a file, as matrices of a checkpoint, or not at all.
pub trait Storage: Clone + Debug + Default {
    /// A vector of f32 numbers, or several of one length.
    type Vectors: Clone + Debug + Default;
    /// The factors and offsets of a norm.
    type Norm: Clone + Debug + Default;
    /// A matrix and its bias.
    type Linear: Clone + Debug + Default;
    /// A depthwise convolution.
    type Depthwise: Clone + Debug + Default;
    /// A matrix over tokens and the diagonals around it.
    type Mixer: Clone + Debug + Default;
}

/// Nothing is held: for walks that only look at names and shapes.
impl Storage for () {
    type Vectors = ();
    type Norm = ();
    type Linear = ();
    type Depthwise = ();
    type Mixer = ();
}

/// Outputs or inputs of a matrix: groups that the file pads each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Number of groups.
    pub groups: usize,
    /// Elements of a group.
    pub len: usize,
    /// Elements from the start of a group to the start of the next one in the file.
    pub pitch: usize,
}

impl Axis {
    /// `len` elements without padding between them.
    pub const fn dense(len: usize) -> Self {
        Self { groups: 1, len, pitch: len }
    }

    /// `groups` groups of `len` elements, each padded to a multiple of 16.
    pub const fn padded(groups: usize, len: usize) -> Self {
        Self { groups, len, pitch: pad16(len) }
    }

    /// Elements without padding.
    pub const fn elements(self) -> usize {
        self.groups * self.len
    }

    /// Elements with the padding of each group.
    pub const fn stored(self) -> usize {
        self.groups * self.pitch
    }

    /// Where element `i` stands in the file.
    pub const fn place(self, i: usize) -> usize {
        // One group may be empty.
        if self.groups == 1 { i } else { i / self.len * self.pitch + i % self.len }
    }
}

/// What stands before the names of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Nothing.
    Network,
    /// `stage.3.`
    Stage(usize),
    /// `blk.3.`
    Block(usize),
    /// `tap.3.`
    Tap(usize),
}

impl Scope {
    /// The whole name of the tensor `name`. `leaf` stands at its end.
    pub fn name(self, name: &str, leaf: &str) -> TensorName {
        let mut whole = TensorName::EMPTY;
        // The longest, "blk.1023.attn_q_norm.weight", fits.
        let _ = match self {
            Self::Network => write!(whole, "{name}{leaf}"),
            Self::Stage(i) => write!(whole, "stage.{i}.{name}{leaf}"),
            Self::Block(i) => write!(whole, "blk.{i}.{name}{leaf}"),
            Self::Tap(i) => write!(whole, "tap.{i}.{name}{leaf}"),
        };
        whole
    }
}

/// The matrix that ends a residual branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The block.
    pub block: usize,
    /// Attention's (0) or the MLP's (1).
    pub branch: usize,
}

/// The parts of one kind that a walk goes through.
pub type Vectors<W> = <<W as Walk>::Storage as Storage>::Vectors;
/// See [`Vectors`].
pub type NormOf<W> = <<W as Walk>::Storage as Storage>::Norm;
/// See [`Vectors`].
pub type LinearOf<W> = <<W as Walk>::Storage as Storage>::Linear;
/// See [`Vectors`].
pub type DepthwiseOf<W> = <<W as Walk>::Storage as Storage>::Depthwise;
/// See [`Vectors`].
pub type MixerOf<W> = <<W as Walk>::Storage as Storage>::Mixer;

/// What is done with the parts of a network, one after another in the order of the file. Each function fails with the
/// walk's own error.
#[allow(clippy::missing_errors_doc)]
pub trait Walk {
    /// What the parts hold.
    type Storage: Storage;
    /// Why it ends early.
    type Error;

    /// The parts that follow have their names in `scope`.
    fn enter(&mut self, scope: Scope);

    /// A vector of `n` numbers.
    fn vector(&mut self, name: &str, n: usize, part: &mut Vectors<Self>) -> Result<(), Self::Error>;

    /// `rows` vectors of `n` numbers.
    fn table(&mut self, name: &str, rows: usize, n: usize, part: &mut Vectors<Self>) -> Result<(), Self::Error>;

    /// A norm over `n` channels, or what stands in its place.
    fn norm(&mut self, name: &str, n: usize, part: &mut NormOf<Self>) -> Result<(), Self::Error>;

    /// A matrix with a bias.
    fn linear(&mut self, name: &str, outputs: Axis, inputs: Axis, part: &mut LinearOf<Self>)
    -> Result<(), Self::Error>;

    /// The matrix that ends a residual branch of a stream `dim` wide: it may lack rows, and its output is multiplied by
    /// `gamma`, which is there where it is not folded yet.
    fn branch_end(
        &mut self,
        name: &str,
        branch: Branch,
        dim: usize,
        inputs: Axis,
        part: &mut LinearOf<Self>,
        gamma: Option<&Vectors<Self>>,
    ) -> Result<(), Self::Error>;

    /// A depthwise convolution of `n` channels, `kernel` x `kernel` taps.
    fn depthwise(
        &mut self,
        name: &str,
        n: usize,
        kernel: usize,
        part: &mut DepthwiseOf<Self>,
    ) -> Result<(), Self::Error>;

    /// A matrix over `tokens`, and the diagonals of `dim` channels around it.
    fn mixer(&mut self, name: &str, tokens: usize, dim: usize, part: &mut MixerOf<Self>) -> Result<(), Self::Error>;

    /// LayerScale's factors, where the file has them as a tensor.
    fn gamma(&mut self, c: &Config, name: &str, n: usize, part: &mut Option<Vectors<Self>>) -> Result<(), Self::Error> {
        if c.keeps_gamma() {
            return self.vector(name, n, part.get_or_insert_default());
        }
        self.absorbed(if c.layerscale == LayerScale::None { 0 } else { n });
        Ok(())
    }

    /// The matrices that follow are stored in this precision, in the place of the network's.
    fn stored_as(&mut self, _precision: Precision) {}

    /// Parameters that conversion has put into other tensors.
    fn absorbed(&mut self, _parameters: usize) {}

    /// Whether the parts that follow are parameters of the network: tables that are computed are not, and no norm that
    /// the file has twice and the network once.
    fn trained(&mut self, _trained: bool) {}

    /// The matrices that follow are multiplied with `rows` rows in each inference, which is work of `stage`.
    fn rows(&mut self, _stage: Stage, _rows: usize) {}

    /// Multiply-adds of `stage` without a matrix of the file.
    fn multiply_adds(&mut self, _stage: Stage, _count: u64) {}
}
