//! The norms and factors around the two matrices of a residual branch in timm's blocks, beside plain LayerNorm:
//! LayerScale and related methods.
//!
//! `model_args.residual` and `model_args.block_norm` name the method, as models/train/residual.py writes them.
//! docs/related-methods.md lists formulas, tensors and sources. Everything but LayerNorm itself is a diagonal, so
//! [`crate::diagonal`] absorbs it here, and the engine never hears of it. The exception is the branch's factor, which
//! becomes a gamma like LayerScale's.

use crate::checkpoint::Checkpoint;
use crate::diagonal;
use crate::error::Error;
use crate::json::Object;
use crate::network::{Affine, Layer, Norm};

/// PyTorch's default, which the fixtures and the project's own networks use.
const BATCH_NORM_EPS: f64 = 1e-5;

/// What comes after the second matrix, by its name in `model_args.residual`.
#[derive(Clone, Copy, PartialEq)]
enum After {
    /// Nothing, or nothing at inference (T-Fixup).
    Nothing,
    LayerScale,
    /// ReZero and SkipInit.
    Scalar,
    /// With scalar biases around both matrices, too.
    Fixup,
    BatchNorm,
    ActNorm,
}

/// What comes before the first matrix, by its name in `model_args.block_norm`.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    LayerNorm,
    BatchNorm,
    ActNorm,
}

/// The kind of residual branch that a network has.
#[derive(Clone, Copy)]
pub(crate) struct Residual {
    before: Before,
    after: After,
}

impl Residual {
    /// # Errors
    /// A kind that we do not know.
    pub(crate) fn new(args: &Object) -> Result<Self, Error> {
        let layerscale = args.number("init_values")?.is_some_and(|v| v != 0.0);
        let (after, default) = match args.text("residual")? {
            None | Some("none" | "layerscale") if layerscale => (After::LayerScale, "layernorm"),
            None | Some("none") => (After::Nothing, "layernorm"),
            Some("layerscale") => return Err(args.error("init_values", "missing; residual layerscale has them")),
            Some(other) if layerscale => {
                return Err(
                    args.error("init_values", format!("LayerScale together with residual {other} is not supported"))
                );
            }
            Some("tfixup") => (After::Nothing, "none"),
            Some("rezero") => (After::Scalar, "none"),
            Some("skipinit") => (After::Scalar, "layernorm"),
            Some("fixup") => (After::Fixup, "none"),
            Some("batchnorm") => (After::BatchNorm, "layernorm"),
            Some("actnorm") => (After::ActNorm, "layernorm"),
            Some(other) => {
                let why = format!(
                    "{other} is not supported; layerscale, rezero, skipinit, fixup, tfixup, batchnorm, actnorm and none \
                     are"
                );
                return Err(args.error("residual", why));
            }
        };
        let before = match args.text("block_norm")?.unwrap_or(default) {
            "none" => Before::Nothing,
            "layernorm" => Before::LayerNorm,
            "batchnorm" => Before::BatchNorm,
            "actnorm" => Before::ActNorm,
            other => {
                let why = format!("{other} is not supported; layernorm, batchnorm, actnorm and none are");
                return Err(args.error("block_norm", why));
            }
        };
        Ok(Self { before, after })
    }

    /// Whether the engine normalizes before each branch.
    pub(crate) fn layer_norm(self) -> bool {
        self.before == Before::LayerNorm
    }

    /// Takes `norm{branch}` of the block whose tensors `at` names: LayerNorm stays, and linear operations go into
    /// `first`.
    ///
    /// # Errors
    /// Tensors that are missing or of another shape.
    pub(crate) fn before(
        self,
        checkpoint: &mut Checkpoint,
        at: &dyn Fn(&str) -> String,
        branch: usize,
        first: &mut Layer,
    ) -> Result<Option<Norm>, Error> {
        let name = at(&format!("norm{branch}"));
        match self.before {
            Before::Nothing => {}
            Before::LayerNorm => return checkpoint.norm(&name, first.k).map(Some),
            Before::BatchNorm => absorb_input(first, batch_norm(checkpoint, &name, first.k)?),
            Before::ActNorm => absorb_input(first, act_norm(checkpoint, &name, first.k)?),
        }
        Ok(None)
    }

    /// Takes the factors and offsets between and after the matrices of a branch of the block whose tensors `at` names;
    /// returns its gamma, `[dim]`.
    ///
    /// # Errors
    /// As [`Self::before`].
    pub(crate) fn after(
        self,
        checkpoint: &mut Checkpoint,
        at: &dyn Fn(&str) -> String,
        branch: usize,
        first: &mut Layer,
        second: &mut Layer,
    ) -> Result<Option<Vec<f32>>, Error> {
        let dim = second.n;
        let name = at(&format!("ls{branch}"));
        match self.after {
            After::Nothing => Ok(None),
            After::LayerScale => {
                // DeiT-III's authors saved gamma_1, XCiT's gamma1.
                let original = ["gamma_", "gamma"].map(|stem| at(&format!("{stem}{branch}")));
                let name = original.into_iter().find(|name| checkpoint.has(name)).unwrap_or(format!("{name}.gamma"));
                checkpoint.gamma(&name, dim).map(Some)
            }
            After::Scalar => checkpoint.gamma(&format!("{name}.alpha"), dim).map(Some),
            After::Fixup => {
                let mut scalar = |leaf: &str| {
                    let values = checkpoint.take(&at(&format!("fixup{branch}.{leaf}")), &[1])?;
                    Ok(values[0])
                };
                absorb_input(first, Affine::scalar(1.0, scalar("bias1a")?, first.k));
                let bias1b = scalar("bias1b")?;
                first.change(move |first| first.bias.iter_mut().for_each(|b| *b += bias1b));
                absorb_input(second, Affine::scalar(1.0, scalar("bias2a")?, second.k));
                let after = Affine::scalar(scalar("scale")?, scalar("bias2b")?, dim);
                absorb_offset_after(second, after).map(Some)
            }
            After::BatchNorm => {
                let after = batch_norm(checkpoint, &name, dim)?;
                absorb_offset_after(second, after).map(Some)
            }
            After::ActNorm => {
                let after = act_norm(checkpoint, &name, dim)?;
                absorb_offset_after(second, after).map(Some)
            }
        }
    }
}

/// [`diagonal::absorb_input`] of a layer in its file.
fn absorb_input(layer: &mut Layer, before: Affine) {
    layer.change(move |linear| diagonal::absorb_input(linear, &before));
}

/// [`diagonal::absorb_offset_after`] of a layer in its file; gamma depends on its biases, so it is read for that.
fn absorb_offset_after(layer: &mut Layer, after: Affine) -> Result<Vec<f32>, Error> {
    let gamma = diagonal::absorb_offset_after(&mut layer.load()?, after.clone());
    layer.change(move |linear| {
        diagonal::absorb_offset_after(linear, after.clone());
    });
    Ok(gamma)
}

/// BatchNorm's tensors `{name}.*` of `n` channels.
pub(crate) fn batch_norm(checkpoint: &mut Checkpoint, name: &str, n: usize) -> Result<Affine, Error> {
    checkpoint.drop_tensor(&format!("{name}.num_batches_tracked"));
    let mut take = |leaf: &str| checkpoint.take(&format!("{name}.{leaf}"), &[n]);
    let (weight, bias, mean, variance) = (take("weight")?, take("bias")?, take("running_mean")?, take("running_var")?);
    if let Some(v) = variance.iter().find(|v| **v < 0.0) {
        return Err(Error::tensor(&format!("{name}.running_var"), format!("{v} is no variance")));
    }
    Ok(Affine::batch_norm(&weight, &bias, &mean, &variance, BATCH_NORM_EPS))
}

fn act_norm(checkpoint: &mut Checkpoint, name: &str, n: usize) -> Result<Affine, Error> {
    let mut take = |leaf: &str| checkpoint.take(&format!("{name}.{leaf}"), &[n]);
    Ok(Affine::act_norm(&take("loc")?, &take("scale")?))
}
