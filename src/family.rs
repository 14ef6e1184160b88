//! Network families: forward passes that read like their papers.

mod cait;
mod convnext;
mod resmlp;
pub(crate) mod transformer;
mod vit;
mod xcit;

use crate::arena::Arena;
use crate::config::Family;
use crate::error::Error;
use crate::lanes::F32x16;
use crate::model::{Model, Rotation};
use crate::parallel::Executor;
use crate::plan::Plan;
use crate::profile::Watch;
use transformer::{Buffers, Input, Pass};

/// What a session has computed beforehand.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'t> {
    /// Each channel's network input for each pixel value.
    pub(crate) normalized: &'t [[f32; 256]],
    /// For another grid than the file's: the position embedding `[patches, pad16(dim)]`.
    pub(crate) positions: Option<&'t [F32x16]>,
    /// The same for DINOv3.
    pub(crate) rotation: Option<Rotation<'t>>,
}

/// One inference: what it is of, and with what.
#[derive(Clone, Copy)]
pub(crate) struct Run<'r> {
    pub(crate) model: &'r Model<'r>,
    pub(crate) plan: &'r Plan,
    pub(crate) executor: &'r dyn Executor,
    pub(crate) tables: Tables<'r>,
    pub(crate) watch: Watch<'r>,
}

/// Bytes that [`forward`] needs.
pub(crate) fn bytes(plan: &Plan) -> usize {
    let (c, mut arena) = (&plan.config, Arena::counting());
    match c.family {
        Family::Vit | Family::ParallelVit | Family::Beit | Family::Dinov3 | Family::Cait => {
            let _ = Buffers::carve(c, plan, &mut arena);
        }
        Family::ResMlp => {
            let _ = resmlp::Buffers::carve(c, plan, &mut arena);
        }
        Family::ConvNeXt => {
            let _ = convnext::Buffers::carve(c, plan, &mut arena);
        }
        Family::Xcit => {
            let _ = xcit::Buffers::carve(c, plan, &mut arena);
        }
    }
    arena.used()
}

/// Computes the plan's outputs into `out`; `memory` holds [`bytes`] bytes.
pub(crate) fn forward(run: &Run<'_>, input: Input<'_>, memory: &mut [u8], out: &mut [F32x16]) -> Result<(), Error> {
    let (c, plan, mut arena) = (&run.plan.config, run.plan, Arena::over(memory));
    let mut transformer =
        |forward: Forward| forward(&Pass::new(run), input, &mut Buffers::carve(c, plan, &mut arena), out);
    match c.family {
        Family::Vit | Family::ParallelVit | Family::Beit | Family::Dinov3 => transformer(vit::forward),
        Family::Cait => transformer(cait::forward),
        Family::ResMlp => {
            resmlp::forward(&Pass::new(run), input, &mut resmlp::Buffers::carve(c, plan, &mut arena), out)
        }
        Family::ConvNeXt => convnext::forward(run, input, &mut convnext::Buffers::carve(c, plan, &mut arena), out),
        Family::Xcit => xcit::forward(&Pass::new(run), input, &mut xcit::Buffers::carve(c, plan, &mut arena), out),
    }
}

/// The forward pass of a family of transformer blocks.
type Forward = fn(&Pass<'_>, Input<'_>, &mut Buffers<'_>, &mut [F32x16]) -> Result<(), Error>;
