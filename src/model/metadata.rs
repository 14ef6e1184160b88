//! The metadata of a model file, as hyperparameters and what stands beside them.

use crate::config::{
    Answer, Attention, Config, CropRounding, Dpt, Enlarging, Family, Head, Interpolation, LayerScale, LinearHead,
    MAX_EDGE, Named, Positions, Preprocess, Resampling, Resize, SizeRule, StageConfig,
};
use crate::error::Error;
use crate::gguf::{File, Value};
use crate::lanes::ALIGNMENT;
use crate::layout::{self, Kept, keys};

/// Typed access to the metadata.
pub(super) struct Metadata<'f, 'a>(pub(super) &'f File<'a>);

impl<'a> Metadata<'_, 'a> {
    fn get<T>(&self, key: &'static str, pick: impl Fn(Value<'a>) -> Option<T>) -> Result<T, Error> {
        let value = self.0.get(key).ok_or(Error::Metadata { key, why: "missing" })?;
        pick(value).ok_or(Error::Metadata { key, why: "wrong type or value" })
    }

    fn len(&self, key: &'static str) -> Result<usize, Error> {
        self.get(key, |v| if let Value::U32(n) = v { usize::try_from(n).ok() } else { None })
    }

    fn f32(&self, key: &'static str) -> Result<f32, Error> {
        self.get(key, |v| if let Value::F32(x) = v { Some(x) } else { None })
    }

    fn flag(&self, key: &'static str) -> Result<bool, Error> {
        self.get(key, |v| if let Value::Bool(b) = v { Some(b) } else { None })
    }

    fn text(&self, key: &'static str) -> Result<&'a str, Error> {
        self.get(key, |v| if let Value::Str(s) = v { Some(s) } else { None })
    }

    fn named<T: Named>(&self, key: &'static str) -> Result<T, Error> {
        self.get(key, |v| if let Value::Str(s) = v { T::from_name(s) } else { None })
    }

    fn rgb(&self, key: &'static str) -> Result<[f32; 3], Error> {
        self.get(key, |v| {
            let Value::F32s(values) = v else { return None };
            let mut rgb = [0.0; 3];
            (values.len() == 3).then(|| rgb.iter_mut().zip(values.iter()).for_each(|(c, x)| *c = x))?;
            Some(rgb)
        })
    }

    pub(super) fn check_origin(&self) -> Result<(), Error> {
        if self.named::<Family>(keys::ARCHITECTURE).is_err() || self.0.get(keys::FORMAT_VERSION).is_none() {
            return Err(Error::Architecture);
        }
        let version = self.len(keys::FORMAT_VERSION)?;
        if version != layout::FORMAT_VERSION as usize {
            return Err(Error::FormatVersion(version as u32));
        }
        if self.len(keys::ALIGNMENT)? != ALIGNMENT {
            return Err(Error::Metadata { key: keys::ALIGNMENT, why: "must be 64" });
        }
        Ok(())
    }

    pub(super) fn config(&self) -> Result<Config, Error> {
        if self.len(keys::CHANNELS)? != 3 {
            return Err(Error::Metadata { key: keys::CHANNELS, why: "must be 3" });
        }
        let family = self.family()?;
        let config = Config {
            family,
            image_height: self.len(keys::IMAGE_HEIGHT)?,
            image_width: self.len(keys::IMAGE_WIDTH)?,
            patch_height: self.len(keys::PATCH_HEIGHT)?,
            patch_width: self.len(keys::PATCH_WIDTH)?,
            dim: self.len(keys::DIM)?,
            depth: self.len(keys::DEPTH)?,
            hidden: self.len(keys::HIDDEN)?,
            positions: self.positions(&family)?,
            norm_eps: self.f32(keys::NORM_EPS)?,
            norm: self.flag(keys::NORM)?,
            fc_norm: self.flag(keys::FC_NORM)?,
            activation: self.named(keys::ACTIVATION)?,
            pooling: self.named(keys::POOLING)?,
            classes: self.len(keys::CLASSES)?,
            head_factors: self.0.get(keys::HEAD_FACTORS).is_some() && self.flag(keys::HEAD_FACTORS)?,
            scores: self.named(keys::SCORES)?,
            precision: self.named(keys::PRECISION)?,
            layerscale: self.named::<LayerScale>(keys::LAYERSCALE_MODE)?,
            head: self.head()?,
            pruned: self.0.get(keys::KEPT).is_some(),
        };
        self.check_family(&config)?;
        Ok(config)
    }

    /// The family, with what the file says of what it has.
    fn family(&self) -> Result<Family, Error> {
        let mut family = self.named(keys::ARCHITECTURE)?;
        match &mut family {
            Family::Cait(cait) => {
                cait.attention = self.attention()?;
                cait.class_blocks = self.len(keys::CLASS_BLOCKS)?;
                cait.block_norm = self.block_norm()?;
            }
            Family::Xcit(xcit) => {
                xcit.attention = self.attention()?;
                xcit.class_blocks = self.len(keys::CLASS_BLOCKS)?;
                xcit.tokens_norm = self.flag(keys::TOKENS_NORM)?;
            }
            Family::ConvNeXt(convnext) => convnext.stages = self.stages()?,
            family => {
                if let Some(vit) = family.vit_mut() {
                    vit.attention = self.attention()?;
                    vit.qk_norm = self.flag(keys::QK_NORM)?;
                    vit.prefix_tokens = self.len(keys::PREFIX_TOKENS)?;
                    vit.norm_pre = self.flag(keys::NORM_PRE)?;
                    vit.block_norm = self.block_norm()?;
                }
            }
        }
        Ok(family)
    }

    fn attention(&self) -> Result<Attention, Error> {
        Ok(Attention {
            heads: self.len(keys::HEADS)?,
            head_dim: self.len(keys::HEAD_DIM)?,
            scale: self.f32(keys::ATTENTION_SCALE)?,
        })
    }

    fn block_norm(&self) -> Result<bool, Error> {
        Ok(self.0.get(keys::BLOCK_NORM).is_none() || self.flag(keys::BLOCK_NORM)?)
    }

    /// Every file says all of this, but not every family has a choice.
    fn check_family(&self, c: &Config) -> Result<(), Error> {
        let same = |key, is_so| if is_so { Ok(()) } else { Err(Error::Metadata { key, why: "not of this network" }) };
        same(keys::HEADS, self.len(keys::HEADS)? == c.heads())?;
        same(keys::HEAD_DIM, self.len(keys::HEAD_DIM)? == c.head_dim())?;
        same(keys::PREFIX_TOKENS, self.len(keys::PREFIX_TOKENS)? == c.prefix_tokens())?;
        same(keys::QK_NORM, self.flag(keys::QK_NORM)? == c.qk_norm())?;
        same(keys::NORM_PRE, self.flag(keys::NORM_PRE)? == c.norm_pre())?;
        same(keys::BLOCK_NORM, self.block_norm()? == c.block_norm())
    }

    /// Files that do not name a head have a classifier, or none.
    fn head(&self) -> Result<Head, Error> {
        if self.0.get(keys::HEAD).is_none() {
            return Ok(Head::Classifier);
        }
        match self.text(keys::HEAD)? {
            "depth" if cfg!(feature = "depth") => self.dpt(),
            "linear_depth" if cfg!(feature = "linear") => {
                let (min, max) = (self.f32(keys::LINEAR_MIN)?, self.f32(keys::LINEAR_MAX)?);
                self.linear(Answer::Depth { min, max })
            }
            "linear_classes" if cfg!(feature = "linear") => self.linear(Answer::Classes),
            _ => Err(Error::Metadata { key: keys::HEAD, why: "this build of vitlet does not have the head" }),
        }
    }

    fn linear(&self, answer: Answer) -> Result<Head, Error> {
        let key = keys::LINEAR_TAPS;
        let taps = self.get(key, |v| if let Value::U32s(n) = v { Some(n) } else { None })?;
        let mut blocks = [0; 4];
        if taps.len() > blocks.len() {
            return Err(Error::Metadata { key, why: "more than four" });
        }
        blocks.iter_mut().zip(taps).for_each(|(block, tap)| *block = u32::from_le_bytes(*tap) as usize);
        Ok(Head::Linear(LinearHead {
            blocks,
            count: taps.len(),
            norm: self.flag(keys::LINEAR_NORM)?,
            class_token: self.flag(keys::LINEAR_CLASS_TOKEN)?,
            channels: self.len(keys::LINEAR_CHANNELS)?,
            answer,
        }))
    }

    fn dpt(&self) -> Result<Head, Error> {
        Ok(Head::Depth(Dpt {
            taps: self.four(keys::DEPTH_TAPS)?,
            reassembled: self.four(keys::DEPTH_REASSEMBLED)?,
            fused: self.len(keys::DEPTH_FUSED)?,
            hidden: self.len(keys::DEPTH_HIDDEN)?,
            metric: self.flag(keys::DEPTH_METRIC)?,
            max_depth: self.f32(keys::DEPTH_MAX)?,
            enlarging: self.enlarging()?,
        }))
    }

    /// Files that do not say it are transformers'.
    fn enlarging(&self) -> Result<Enlarging, Error> {
        let said = self.0.get(keys::DEPTH_ENLARGING).is_some();
        if said { self.named(keys::DEPTH_ENLARGING) } else { Ok(Enlarging::default()) }
    }

    /// Files that do not say how a position embedding is resampled are timm's, or of vitlet 0.1.
    fn positions(&self, family: &Family) -> Result<Positions, Error> {
        let said = |key| self.0.get(key).is_some();
        Ok(match family {
            Family::ConvNeXt(_) => Positions::Free,
            Family::Dinov3(_) if said(keys::ROPE_PERIODS) => Positions::Rotated,
            Family::Vit5(_) if !said(keys::ROPE_FREQUENCIES) => Positions::Fixed,
            Family::Vit(_) | Family::ParallelVit(_) | Family::Vit5(_) | Family::Cait(_) => {
                let grid = if said(keys::POSITION_GRID) { Some(self.position_grid()?) } else { None };
                match self.text(keys::POSITION_RESAMPLING) {
                    Ok("fixed") if grid.is_none() => Positions::Fixed,
                    _ if !said(keys::POSITION_RESAMPLING) => {
                        Positions::Resampled { rule: Resampling::BicubicAntialias, grid }
                    }
                    _ => Positions::Resampled { rule: self.named(keys::POSITION_RESAMPLING)?, grid },
                }
            }
            _ => Positions::Fixed,
        })
    }

    /// Rows and columns of the position embedding.
    fn position_grid(&self) -> Result<(usize, usize), Error> {
        let two = |v| if let Value::U32s(n) = v { n.try_into().ok() } else { None };
        let [rows, columns]: [[u8; 4]; 2] = self.get(keys::POSITION_GRID, two)?;
        Ok((u32::from_le_bytes(rows) as usize, u32::from_le_bytes(columns) as usize))
    }

    /// As many numbers as the rotations of `config` take: periods of at least 1, or frequencies of at most 1.
    pub(super) fn check_rope(&self, config: &Config) -> Result<(), Error> {
        let is_vit5 = matches!(config.family, Family::Vit5(_));
        let usable =
            |number: f32| if is_vit5 { (-1.0..=1.0).contains(&number) } else { number.is_finite() && number >= 1.0 };
        let fit = |value| {
            let Value::F32s(numbers) = value else { return None };
            (numbers.len() == config.head_dim() / 4 && numbers.iter().all(usable)).then_some(())
        };
        let follows = config.rotated_tokens() > 0 && config.positions != Positions::Fixed;
        if follows { self.get(keys::rope(&config.family), fit) } else { Ok(()) }
    }

    /// Which rows the last matrices of branches have left.
    pub(super) fn kept(&self, config: &Config) -> Result<Kept<'a>, Error> {
        let masks = |v| if let Value::U32s(masks) = v { Some(masks) } else { None };
        let masks = if config.pruned { self.get(keys::KEPT, masks)? } else { &[] };
        Kept::new(masks, config).map_err(|why| Error::Metadata { key: keys::KEPT, why })
    }

    /// ConvNeXt's widths and depths.
    fn stages(&self) -> Result<[StageConfig; 4], Error> {
        let (dims, depths) = (self.four(keys::STAGE_DIMS)?, self.four(keys::STAGE_DEPTHS)?);
        Ok(core::array::from_fn(|i| StageConfig { dim: dims[i], depth: depths[i] }))
    }

    fn four(&self, key: &'static str) -> Result<[usize; 4], Error> {
        let four: [[u8; 4]; 4] = self.get(key, |v| if let Value::U32s(n) = v { n.try_into().ok() } else { None })?;
        Ok(four.map(|n| u32::from_le_bytes(n) as usize))
    }

    pub(super) fn preprocess(&self, config: &Config) -> Result<Preprocess, Error> {
        let size = |key| {
            let edge = self.len(key)?;
            let edge = u32::try_from(edge).ok().filter(|edge| (1..=MAX_EDGE).contains(edge));
            edge.ok_or(Error::Metadata { key, why: "must be 1 to 16777216" })
        };
        let resize = match self.text(keys::RESIZE)? {
            "shorter_edge" => Resize::ShorterEdge(size(keys::RESIZE_HEIGHT)?),
            "exact" => Resize::Exact { height: size(keys::RESIZE_HEIGHT)?, width: size(keys::RESIZE_WIDTH)? },
            "cover" => Resize::Cover { height: size(keys::RESIZE_HEIGHT)?, width: size(keys::RESIZE_WIDTH)? },
            "contain" => Resize::Contain { height: size(keys::RESIZE_HEIGHT)?, width: size(keys::RESIZE_WIDTH)? },
            _ => return Err(Error::Metadata { key: keys::RESIZE, why: "unknown" }),
        };
        let interpolation = self.named::<Interpolation>(keys::INTERPOLATION)?;
        let crop_rounding = match self.text(keys::CROP_ROUNDING)? {
            "even" => CropRounding::Even,
            "floor" => CropRounding::Floor,
            _ => return Err(Error::Metadata { key: keys::CROP_ROUNDING, why: "unknown" }),
        };
        let usable = |pct: &f64| (0.01..=1.0).contains(pct);
        let number = |value| if let Value::F64(pct) = value { Some(pct).filter(usable) } else { None };
        let crop_pct = self.0.get(keys::CROP_PCT).map(|_| self.get(keys::CROP_PCT, number)).transpose()?;
        let (mean, std) = (self.rgb(keys::MEAN)?, self.rgb(keys::STD)?);
        if !mean.iter().all(|x| x.is_finite()) {
            return Err(Error::Metadata { key: keys::MEAN, why: "must be finite" });
        }
        // Black and white, normalized.
        let ends = mean.iter().zip(&std).flat_map(|(mean, std)| [(0.0 - mean) / std, (1.0 - mean) / std]);
        if !std.iter().all(|x| x.is_finite() && *x != 0.0) || !ends.into_iter().all(f32::is_finite) {
            return Err(Error::Metadata {
                key: keys::STD,
                why: "must be finite, not zero, and not too small for the mean",
            });
        }
        Ok(Preprocess {
            height: config.image_height as u32,
            width: config.image_width as u32,
            resize,
            interpolation,
            crop_rounding,
            crop_pct,
            size_rule: self.size_rule(config)?,
            mean,
            std,
        })
    }

    /// Files without it have one size for every picture.
    fn size_rule(&self, config: &Config) -> Result<Option<SizeRule>, Error> {
        if self.0.get(keys::SIZE_RULE).is_none() {
            return Ok(None);
        }
        let (key, why) = (keys::SIZE_MULTIPLE, "must be a multiple of a token's edges, at most 16384");
        let (multiple, (height, width)) = (self.len(key)?, config.token_size());
        let fits = |edge: usize| edge > 0 && multiple.is_multiple_of(edge);
        if !(1..=16_384).contains(&multiple) || !fits(height) || !fits(width) {
            return Err(Error::Metadata { key, why });
        }
        Ok(Some(SizeRule { scale: self.named(keys::SIZE_RULE)?, multiple: multiple as u32 }))
    }
}
