//! Parameters and multiply-adds of a network.

use core::convert::Infallible;

use crate::config::Config;
use crate::lanes::channels;
use crate::layout::Kept;
use crate::parts::{Axis, Branch, Scope, Walk};
use crate::profile::Stage;

/// Multiply-adds of one inference, without the padding of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work([u64; Stage::ALL.len()]);

impl Work {
    /// Those of one stage.
    pub fn of(&self, stage: Stage) -> u64 {
        self.0[stage as usize]
    }

    /// Those of all stages.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// Adds up what a network has and what it does.
pub struct Count<'c, 'k> {
    config: &'c Config,
    kept: Kept<'k>,
    trained: bool,
    /// What the matrices that come are multiplied with.
    stage: Stage,
    rows: usize,
    /// Numbers that training set: weights, biases, norms, embeddings and gammas, without padding, and without the sums
    /// and scales of quantization. Gammas count though they are folded, rows though they were pruned.
    pub parameters: usize,
    /// Multiply-adds. Taps of convolutions that lie outside the picture count, rows that were pruned do not.
    pub work: Work,
}

impl<'c, 'k> Count<'c, 'k> {
    /// Nothing yet.
    pub fn new(config: &'c Config, kept: Kept<'k>) -> Self {
        let (stage, rows) = (Stage::PatchEmbed, 0);
        Self { config, kept, trained: true, stage, rows, parameters: 0, work: Work::default() }
    }

    fn add(&mut self, parameters: usize) {
        self.parameters += if self.trained { parameters } else { 0 };
    }

    fn products(&mut self, of_a_row: usize) {
        self.multiply_adds(self.stage, self.rows as u64 * of_a_row as u64);
    }
}

impl Walk for Count<'_, '_> {
    type Storage = ();
    type Error = Infallible;

    fn enter(&mut self, _: Scope) {}

    fn vector(&mut self, _: &str, n: usize, _: &mut ()) -> Result<(), Infallible> {
        self.add(n);
        Ok(())
    }

    fn table(&mut self, _: &str, rows: usize, n: usize, _: &mut ()) -> Result<(), Infallible> {
        self.add(rows * n);
        Ok(())
    }

    fn norm(&mut self, _: &str, n: usize, _: &mut ()) -> Result<(), Infallible> {
        // RMSNorm has no bias; the file has zeros.
        self.add(if self.config.centered_norms() { 2 * n } else { n });
        Ok(())
    }

    fn linear(&mut self, _: &str, outputs: Axis, inputs: Axis, _: &mut ()) -> Result<(), Infallible> {
        let (n, k) = (outputs.elements(), inputs.elements());
        self.add(n * k + n);
        self.products(n * k);
        Ok(())
    }

    fn branch_end(
        &mut self,
        _: &str,
        branch: Branch,
        dim: usize,
        inputs: Axis,
        _: &mut (),
        _: Option<&()>,
    ) -> Result<(), Infallible> {
        let left = self.kept.mask(self.config, branch.block, branch.branch).map_or(dim, channels);
        self.add(dim * inputs.elements() + dim);
        self.products(left * inputs.elements());
        Ok(())
    }

    fn depthwise(&mut self, _: &str, n: usize, kernel: usize, _: &mut ()) -> Result<(), Infallible> {
        self.add(n * kernel * kernel + n);
        self.products(n * kernel * kernel);
        Ok(())
    }

    fn mixer(&mut self, _: &str, tokens: usize, dim: usize, _: &mut ()) -> Result<(), Infallible> {
        self.add(tokens * tokens + tokens + 2 * dim);
        self.products(tokens * tokens * dim);
        Ok(())
    }

    fn absorbed(&mut self, parameters: usize) {
        self.add(parameters);
    }

    fn trained(&mut self, trained: bool) {
        self.trained = trained;
    }

    fn rows(&mut self, stage: Stage, rows: usize) {
        (self.stage, self.rows) = (stage, rows);
    }

    fn multiply_adds(&mut self, stage: Stage, count: u64) {
        self.work.0[stage as usize] += count;
    }
}
