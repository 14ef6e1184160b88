//! Network families: forward passes that read like their papers.

mod cait;
mod convnext;
mod resmlp;
pub(crate) mod transformer;
mod vit;
mod xcit;

use crate::arena::Arena;
use crate::config::{Config, Family};
use crate::error::Error;
use crate::kernels::isa::F32x16;
use crate::model::Model;
use crate::profile::Watch;
use crate::session::{Output, Plan};
use transformer::{Buffers, Input, Pass};

/// Bytes that [`forward`] needs.
pub(crate) fn bytes(model: &Model<'_>, plan: &Plan<'_>) -> usize {
    let (c, mut arena) = (model.config(), Arena::counting());
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

/// One inference. `out` receives what `plan.output` says, compact; `memory` holds [`bytes`] bytes.
pub(crate) fn forward(
    model: &Model<'_>,
    plan: &Plan<'_>,
    input: Input<'_>,
    memory: &mut [u8],
    out: &mut [F32x16],
    watch: Watch<'_>,
) -> Result<(), Error> {
    let (c, mut arena) = (model.config(), Arena::over(memory));
    let mut transformer = |forward: Forward| {
        let pass = Pass::new(model, plan.kernels, plan.executor, watch);
        forward(c, &pass, input, plan.output, &mut Buffers::carve(c, plan, &mut arena), out)
    };
    match c.family {
        Family::Vit | Family::ParallelVit | Family::Beit | Family::Dinov3 => transformer(vit::forward),
        Family::Cait => transformer(cait::forward),
        Family::ResMlp => {
            let b = &mut resmlp::Buffers::carve(c, plan, &mut arena);
            let pass = Pass::new(model, plan.kernels, plan.executor, watch);
            resmlp::forward(&pass, input, plan.output, b, out)
        }
        Family::ConvNeXt => {
            let b = &mut convnext::Buffers::carve(c, plan, &mut arena);
            let pass = convnext::Pass { model, k: plan.kernels, threads: plan.threads, executor: plan.executor, watch };
            convnext::forward(c, &pass, input, plan.output, b, out)
        }
        Family::Xcit => {
            let b = &mut xcit::Buffers::carve(c, plan, &mut arena);
            let pass = Pass::new(model, plan.kernels, plan.executor, watch);
            xcit::forward(c, &pass, input, plan.output, b, out)
        }
    }
}

/// The forward pass of a family of transformer blocks.
type Forward = fn(&Config, &Pass<'_>, Input<'_>, Output, &mut Buffers<'_>, &mut [F32x16]) -> Result<(), Error>;
