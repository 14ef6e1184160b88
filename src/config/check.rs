//! Which hyperparameters a network may have.

use super::{Activation, Attention, Config, ConvNeXt, Family, Pooling, Vit};
use crate::error::Error;

pub(super) fn ok(is_so: bool, what: &'static str) -> Result<(), Error> {
    if is_so { Ok(()) } else { Err(Error::Config(what)) }
}

impl Config {
    /// Every length within what the arithmetic is proved for: K and tokens at most 65,536, so that no product of
    /// lengths below overflows 64 bits and no int8 dot product overflows 32.
    #[inline(never)]
    pub fn check(&self) -> Result<(), Error> {
        let within = |n: usize, most: usize| (1..=most).contains(&n);
        ok(self.family.is_built(), "this build of vitlet leaves the network out: it is a cargo feature")?;
        ok(within(self.image_height, 16_384) && within(self.image_width, 16_384), "image size must be 1 to 16384")?;
        ok(within(self.patch_height, 128) && within(self.patch_width, 128), "patch size must be 1 to 128")?;
        let (height, width) = self.token_size();
        ok(
            self.image_height.is_multiple_of(height) && self.image_width.is_multiple_of(width),
            "image size must be a multiple of the patch size (ConvNeXt: of 8 patches)",
        )?;
        ok(within(self.dim, 16_384), "embedding length must be 1 to 16384")?;
        ok(within(self.depth, 1_024), "block count must be 1 to 1024")?;
        ok(within(self.hidden, 32_768), "feed forward length must be 1 to 32768")?;
        ok(self.prefix_tokens() <= 1_024 && self.tokens() <= 65_536, "at most 65536 tokens")?;
        match &self.family {
            Family::Vit(_) | Family::ParallelVit(_) => {}
            Family::Beit(Vit { prefix_tokens, .. }) => ok(*prefix_tokens == 1, "beit has one class token")?,
            Family::Dinov3(Vit { attention, .. }) | Family::Vit5(Vit { attention, .. }) => {
                ok(attention.head_dim.is_multiple_of(4), "a head length of dinov3 and vit5 is a multiple of 4")?;
            }
            Family::Cait(_) => ok(self.pooling == Pooling::Cls, "cait pools its class token")?,
            Family::ConvNeXt(convnext) => self.check_convnext(convnext)?,
            Family::Xcit(_) => self.check_xcit()?,
            Family::ResMlp => {
                ok(!self.fc_norm && self.pooling == Pooling::Avg, "resmlp pools the mean, without fc_norm")?
            }
        }
        self.family.attention().map_or(Ok(()), Attention::check)?;
        ok(
            !self.pruned || (self.family.attention().is_some() && !self.keeps_gamma()),
            "neither convnext nor resmlp is pruned, nor what keeps its gammas",
        )?;
        ok(self.class_blocks() <= 1_024, "class block count must be at most 1024")?;
        ok(self.classes <= 1 << 20, "at most 1048576 classes")?;
        ok(!self.head_factors || self.classes > 0, "head factors without a head")?;
        self.depth_head().map_or(Ok(()), |dpt| dpt.check(self))?;
        self.linear_head().map_or(Ok(()), |linear| linear.check(self))?;
        let (rows, columns) = self.table_grid();
        ok(
            within(rows, 65_536) && within(columns, 65_536) && rows.saturating_mul(columns) <= 65_536,
            "at most 65536 positions",
        )?;
        ok(self.norm_eps.is_finite() && self.norm_eps >= 0.0, "norm epsilon must be finite and not negative")?;
        let needed = match self.pooling {
            Pooling::Cls | Pooling::ClsAvg => 1,
            Pooling::ClsDist => 2,
            Pooling::Avg | Pooling::All => 0,
        };
        ok(self.prefix_tokens() >= needed, "pooling reads a token that the network does not have")
    }

    fn check_convnext(&self, ConvNeXt { stages }: &ConvNeXt) -> Result<(), Error> {
        let [.., last] = stages;
        let depths = stages.iter().try_fold(0usize, |sum, stage| sum.checked_add(stage.depth));
        ok(depths == Some(self.depth), "the stages' block counts must add up to the block count")?;
        ok(stages.iter().all(|s| s.depth > 0), "every stage must have blocks")?;
        ok(stages.iter().all(|s| (1..=8_192).contains(&s.dim)), "a stage's embedding length must be 1 to 8192")?;
        ok(
            last.dim == self.dim && last.hidden() == self.hidden,
            "embedding and feed forward length must be the last stage's, the latter 4 times the former",
        )?;
        let (height, width) = self.stage_grid(0);
        ok(height * width <= 65_536, "at most 65536 tokens")?;
        ok(
            self.activation != Activation::SwiGlu && self.pooling == Pooling::Avg,
            "convnext pools the mean, and has no swiglu",
        )
    }

    /// XCiT as it is run: fewer variants than a ViT has.
    fn check_xcit(&self) -> Result<(), Error> {
        ok(
            self.patch_height == self.patch_width && matches!(self.patch_height, 8 | 16),
            "xcit has patches of 8 x 8 or 16 x 16 pixels",
        )?;
        ok((8..=8_192).contains(&self.dim), "xcit's embedding length must be 8 to 8192")?;
        ok(
            matches!(self.pooling, Pooling::Cls | Pooling::Avg) && self.activation == Activation::Gelu,
            "xcit has gelu, and pools its class token or the mean of the patches",
        )
    }
}

impl Attention {
    fn check(&self) -> Result<(), Error> {
        let within = |n: usize| (1..=1_024).contains(&n);
        ok(within(self.heads) && within(self.head_dim), "heads and head length must be 1 to 1024")?;
        ok(self.heads * self.head_dim.next_multiple_of(16) <= 65_536, "heads * head length must be at most 65536")?;
        ok(self.scale.is_finite() && self.scale >= 0.0, "attention scale must be finite and not negative")
    }
}
