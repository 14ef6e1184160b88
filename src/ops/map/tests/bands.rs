//! int8 convolutions of heads, from docs/numerics.md ("Convolutions, int8"): every band of 8 lines of the output has
//! the scale of the lines that it reads.

use super::*;
use crate::bytes::floats_mut;

#[test]
fn int8_convolutions_of_heads_have_a_scale_for_each_band() {
    let mut random = Random::new(7);
    for (size, stride, relu) in [((21, 5), 1, false), ((21, 5), 2, true), ((35, 3), 2, false), ((8, 9), 1, true)] {
        let (mut x, channels, n) = (Pixels::random(size, 15, &mut random), 15, 17);
        // Bands of very different ranges.
        let line = x.data.len() / size.0;
        for (y, line) in x.data.chunks_mut(line).enumerate() {
            floats_mut(line).iter_mut().for_each(|v| *v *= 1.0 + (y * y) as f32);
        }
        let start = Pixels::random(convolved(size, stride), n, &mut random);
        let weights = Weights::new(Precision::Int8, n, 9, channels, &mut random);
        let read = |y: usize, u: usize, c: usize| {
            let v = x.at(y, u, c);
            if relu { v.max(0.0) } else { v }
        };
        let expected = Pixels::of(start.size, n, |v, u, n| {
            let band = v / 8 * 8..(v / 8 * 8 + 8).min(start.size.0);
            let lines = (stride * band.start).saturating_sub(1)..(stride * (band.end - 1) + 2).min(size.0);
            let values = lines.flat_map(|y| (0..size.1).flat_map(move |u| (0..channels).map(move |c| (y, u, c))));
            let (lo, hi) =
                values.fold((0.0f32, 0.0f32), |(lo, hi), (y, u, c)| (lo.min(read(y, u, c)), hi.max(read(y, u, c))));
            let (scale, inverse) = ((hi - lo) / 255.0, 255.0 / (hi - lo));
            let zero = (-lo * inverse).clamp(0.0, 255.0).round_ties_even();
            let mut sum = 0.0;
            for (i, w) in weights.w[n * 9 * channels..][..9 * channels].iter().enumerate() {
                let (dy, dx, c) = (i / channels / 3, i / channels % 3, i % channels);
                let (y, u) = ((stride * v + dy).wrapping_sub(1), (stride * u + dx).wrapping_sub(1));
                if y < size.0 && u < size.1 {
                    let code = libm::fmaf(read(y, u, c), inverse, zero).clamp(0.0, 255.0).round_ties_even();
                    sum += (code - zero) * w;
                }
            }
            libm::fmaf(sum * scale, weights.scale[n], weights.bias[n])
        });
        let conv = Conv3x3 { linear: &weights.packed.linear(), stride, relu, end: End::Store };
        let results = everywhere(9 * 16, Precision::Int8, Scheme::Head, &start, |workers, y| {
            workers.conv3x3(x.map(), conv, y).unwrap();
        });
        assert!(bits(&results[0].data) == bits(&expected.data), "{size:?} {stride}");
    }
}
