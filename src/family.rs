//! Network families: forward passes that read like their papers.

mod cait;
pub(crate) mod transformer;
mod vit;

use crate::arena::Arena;
use crate::config::Family;
use crate::error::Error;
use crate::kernels::isa::F32x16;
use crate::model::Model;
use crate::parallel::Executor;
use crate::profile::Watch;
use crate::session::RunConfig;
use transformer::{Buffers, Input, Pass};

/// Bytes that [`forward`] needs.
pub(crate) fn bytes(model: &Model<'_>, run: &RunConfig) -> usize {
    let mut arena = Arena::counting();
    let _ = Buffers::carve(model.config(), run, &mut arena);
    arena.used()
}

/// One inference. `out` receives what `run.output` says, compact; `memory` holds [`bytes`] bytes.
pub(crate) fn forward(
    model: &Model<'_>,
    run: &RunConfig,
    input: Input<'_>,
    memory: &mut [u8],
    out: &mut [F32x16],
    executor: &dyn Executor,
    watch: Watch<'_>,
) -> Result<(), Error> {
    let c = model.config();
    let b = &mut Buffers::carve(c, run, &mut Arena::over(memory));
    let pass = Pass::new(model, run.kernels, executor, watch);
    match c.family {
        Family::Vit | Family::Beit | Family::Dinov3 => vit::forward(c, &pass, input, run.output, b, out),
        Family::Cait => cait::forward(c, &pass, input, run.output, b, out),
    }
}
