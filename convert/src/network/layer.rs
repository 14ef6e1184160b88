//! A linear layer that stays in its file until it is needed, so that a conversion holds one layer at a time and not the
//! network.

use std::fmt;
use std::sync::Arc;

use super::Linear;
use crate::error::Error;
use crate::tensor::Tensor;

/// How a [`Layer`] comes to its weights and biases.
type Load = dyn Fn() -> Result<Linear, Error> + Send + Sync;

/// The shape of a linear layer, and the way to its weights. [`Self::load`] reads them anew each time; clones share
/// everything.
#[derive(Clone)]
pub struct Layer {
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    load: Arc<Load>,
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layer[{}, {}]", self.n, self.k)
    }
}

impl Layer {
    /// A layer of `n` outputs and `k` inputs, which `load` reads.
    pub fn new(n: usize, k: usize, load: impl Fn() -> Result<Linear, Error> + Send + Sync + 'static) -> Self {
        Self { n, k, load: Arc::new(load) }
    }

    /// The layer of the matrix in `weight`: its first axis are the outputs, as many as `bias` has; all others are the
    /// inputs.
    pub(crate) fn stored(weight: Tensor, bias: Vec<f32>) -> Self {
        let (n, k) = (bias.len(), weight.shape[1..].iter().product());
        Self::new(n, k, move || Ok(Linear { n, k, weight: weight.read()?, bias: bias.clone() }))
    }

    /// Reads the layer.
    ///
    /// # Errors
    /// Weights that are not finite.
    ///
    /// # Panics
    /// If what is read has another shape.
    pub fn load(&self) -> Result<Linear, Error> {
        let linear = (self.load)()?;
        assert_eq!((linear.n, linear.k, linear.weight.len()), (self.n, self.k, self.n * self.k), "the layer's shape");
        Ok(linear)
    }

    /// Does `change`, which keeps the shape, to the layer after it is read, every time.
    pub fn change(&mut self, change: impl Fn(&mut Linear) + Send + Sync + 'static) {
        let before = self.clone();
        *self = Self::new(self.n, self.k, move || {
            let mut linear = before.load()?;
            change(&mut linear);
            Ok(linear)
        });
    }

    /// Layers with the same input, one after another: outputs of the first, then of the second, ...
    ///
    /// # Panics
    /// If `parts` is empty or their inputs differ.
    pub fn stack(parts: Vec<Self>) -> Self {
        if let [part] = &parts[..] {
            return part.clone();
        }
        let (n, k) = (parts.iter().map(|part| part.n).sum(), parts[0].k);
        assert!(parts.iter().all(|part| part.k == k), "stacked layers share their input");
        Self::new(n, k, move || {
            let mut all = Linear { n, k, weight: Vec::with_capacity(n * k), bias: Vec::with_capacity(n) };
            for part in &parts {
                let Linear { weight, bias, .. } = part.load()?;
                all.weight.extend(weight);
                all.bias.extend(bias);
            }
            Ok(all)
        })
    }

    /// The reverse of [`Self::stack`]: the first `n` outputs, and the others.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn split(self, n: usize) -> [Self; 2] {
        let (all, k) = (self.n, self.k);
        assert!(n <= all, "{n} of {all} outputs");
        let part = |outputs: std::ops::Range<usize>| {
            let whole = self.clone();
            Self::new(outputs.len(), k, move || {
                let mut part = whole.load()?;
                part.weight.truncate(outputs.end * k);
                part.weight.drain(..outputs.start * k);
                part.bias.truncate(outputs.end);
                part.bias.drain(..outputs.start);
                Ok(Linear { n: outputs.len(), ..part })
            })
        };
        [part(0..n), part(n..all)]
    }

    /// The sum of two layers over the concatenation of their inputs: `[self | other]`, biases added.
    ///
    /// # Panics
    /// If their outputs differ.
    pub fn beside(self, other: Self) -> Self {
        assert_eq!(self.n, other.n, "layers beside each other share their output");
        let (n, k) = (self.n, self.k + other.k);
        Self::new(n, k, move || {
            let (left, right) = (self.load()?, other.load()?);
            let mut weight = Vec::with_capacity(n * k);
            for (left, right) in left.rows().zip(right.rows()) {
                weight.extend_from_slice(left);
                weight.extend_from_slice(right);
            }
            Ok(Linear { n, k, weight, bias: left.bias.iter().zip(&right.bias).map(|(a, b)| a + b).collect() })
        })
    }
}

/// A layer without outputs and inputs.
impl Default for Layer {
    fn default() -> Self {
        Self::from(Linear { n: 0, k: 0, weight: Vec::new(), bias: Vec::new() })
    }
}

/// A layer that is in memory anyway.
impl From<Linear> for Layer {
    fn from(linear: Linear) -> Self {
        Self::new(linear.n, linear.k, move || Ok(linear.clone()))
    }
}
