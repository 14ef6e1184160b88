//! Depth maps as PNG: colours for people, 16 bits for programs. Rows are made one after another.

use ::png::{BitDepth, ColorType};

use super::colors::{Palette, Scale};
use super::map::{DepthMap, Unit};
use crate::maps::png;
use crate::panel::Panel;

/// Millimetres in 16 bits end here.
pub const FARTHEST_METRES: f32 = 65.535;

/// A picture of 8 bits and three channels. Errors say why only.
pub fn colors(map: &DepthMap, scale: Scale, palette: &Palette, legend: Option<&Panel>) -> Result<Vec<u8>, String> {
    png::encode(&map.data, map.width, (ColorType::Rgb, BitDepth::Eight), &[], |y, depths, row| {
        row.extend(depths.iter().flat_map(|depth| palette.at(scale.nearness(*depth))));
        if let Some(legend) = legend {
            legend.cover(y, row);
        }
    })
}

/// A gray picture of 16 bits: millimetres, rounded, from 1 to 65535, or for inverse depths 0 where `scale` is far and
/// 65535 where it is near. Its text says which. Errors say why only.
pub fn sixteen_bits(map: &DepthMap, unit: Unit, scale: Scale) -> Result<Vec<u8>, String> {
    let most = f32::from(u16::MAX);
    let code = |depth: f32| match unit {
        // 0 stands for "unknown" in most programs that read millimetres.
        Unit::Metres => (depth * 1000.0).round().clamp(1.0, most) as u16,
        Unit::Inverse => (scale.nearness(depth) * most).round() as u16,
    };
    let text = match unit {
        Unit::Metres => vec![("Unit", "millimetres".to_string())],
        Unit::Inverse => vec![
            ("Unit", "relative inverse depth".to_string()),
            ("Value of 0", scale.far.to_string()),
            ("Value of 65535", scale.near.to_string()),
        ],
    };
    png::encode(&map.data, map.width, (ColorType::Grayscale, BitDepth::Sixteen), &text, |_, depths, row| {
        row.extend(depths.iter().flat_map(|depth| code(*depth).to_be_bytes()));
    })
}
