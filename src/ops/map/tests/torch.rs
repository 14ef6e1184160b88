//! Values that PyTorch 2.15 computed:
//!
//! ```python
//! import math, torch, torch.nn.functional as F
//!
//! def t(m, n, *shape):
//!     return ((torch.arange(math.prod(shape)) * m % n - n // 2) / 8).reshape(shape)
//!
//! x, w, v, b = t(7, 11, 1, 3, 4, 5), t(5, 13, 2, 3, 3, 3), t(5, 13, 3, 2, 2, 2), torch.tensor([0.5, -0.25])
//! print(F.conv2d(x, w, b, padding=1), F.conv2d(x, w, b, stride=2, padding=1))
//! print(F.conv_transpose2d(x[:, :, :2, :3], v, b, stride=2))
//! for size in [(6, 7), (2, 3), (1, 1)]:
//!     for corners in [True, False]:
//!         print(F.interpolate(x[:, :1], size, mode="bilinear", align_corners=corners))
//! p = torch.tensor([[-0.9, -0.8], [0.1, 0.3], [0.95, -0.1], [-1.2, 0.5], [0, 1.3], [2, 2]])
//! print(F.grid_sample(x[:, :2], p[None, None], align_corners=False))
//! ```

use super::*;

/// `t` above.
fn pattern(m: usize, n: usize, i: usize) -> f32 {
    ((i * m % n) as f32 - (n / 2) as f32) / 8.0
}

/// The first lines, columns and channels of `x` above.
fn x((height, width): (usize, usize), channels: usize) -> Pixels {
    Pixels::of((height, width), channels, |y, u, c| pattern(7, 11, (c * 4 + y) * 5 + u))
}

/// Wider than the rounding of 7 significant digits and of PyTorch's own f32.
fn assert_near(result: &Pixels, expected: &[f32]) {
    let values = result.planes();
    assert_eq!(values.len(), expected.len());
    for (y, expected) in values.iter().zip(expected) {
        assert!((y - expected).abs() <= 3e-7, "{y} for {expected}");
    }
}

#[test]
fn convolutions_of_3x3() {
    let mut w = vec![0.0; 2 * 9 * 16];
    for i in 0..2 * 3 * 9 {
        let (n, c, tap) = (i / 27, i / 9 % 3, i % 9);
        w[(n * 9 + tap) * 16 + c] = pattern(5, 13, i);
    }
    let packed = Packed::new(Precision::F32, &w, &[1.0; 2], &[0.5, -0.25]);
    let linear = &packed.linear();
    for (stride, expected) in [(1, &STRIDE_1[..]), (2, &STRIDE_2[..])] {
        let start = Pixels::of(convolved((4, 5), stride), 2, |_, _, _| 9.0);
        let conv = Conv3x3 { linear, stride, relu: false, end: End::Store };
        let work =
            |workers: &mut Workers<'_>, y: &mut MapMut<'_>| workers.conv3x3(x((4, 5), 3).map(), conv, y).unwrap();
        assert_near(&everywhere(linear.k, Precision::F32, Scheme::Head, &start, work)[0], expected);
    }
}

#[test]
fn transposed_convolutions() {
    let mut w = vec![0.0; 4 * 16 * 3];
    for i in 0..3 * 2 * 4 {
        let (c, n, tap) = (i / 8, i / 4 % 2, i % 4);
        w[(tap * 16 + n) * 3 + c] = pattern(5, 13, i);
    }
    let bias: Vec<f32> = (0..4 * 16).map(|i| [0.5, -0.25].get(i % 16).copied().unwrap_or(0.0)).collect();
    let packed = Packed::new(Precision::F32, &w, &[1.0; 4 * 16], &bias);
    let start = Pixels::of((4, 6), 2, |_, _, _| 9.0);
    let result = floats_everywhere(&start, |workers, y| {
        workers.transposed(x((2, 3), 3).map(), &packed.linear(), 2, End::Store, y).unwrap();
    });
    assert_near(&result, &TRANSPOSED);
}

#[test]
fn resizing() {
    for (size, corners, expected) in [
        ((6, 7), Corners::Aligned, &UP_ALIGNED[..]),
        ((6, 7), Corners::Outer, &UP_OUTER),
        ((2, 3), Corners::Aligned, &[-0.625, -0.25, 0.125, 0.125, 0.5, -0.5]),
        ((2, 3), Corners::Outer, &[-0.2083334, -0.125, 0.1875, -0.1666667, 0.375, 0.0]),
        ((1, 1), Corners::Aligned, &[-0.625]),
        ((1, 1), Corners::Outer, &[0.125]),
    ] {
        let start = Pixels::of(size, 1, |_, _, _| 9.0);
        let work = |workers: &mut Workers<'_>, y: &mut MapMut<'_>| {
            workers.resize(x((4, 5), 1).map(), corners, y).unwrap();
        };
        assert_near(&floats_everywhere(&start, work), expected);
    }
}

#[test]
fn sampling() {
    let points = [[-0.9, -0.8], [0.1, 0.3], [0.95, -0.1], [-1.2, 0.5], [0.0, 1.3], [2.0, 2.0]];
    let mut result = Pixels::of((1, points.len()), 2, |_, _, _| 9.0);
    sample(Kernels::scalar(), x((4, 5), 2).map(), &points, &mut result.data);
    assert_near(&result, &SAMPLED);
}

const STRIDE_1: [f32; 40] = [
    -0.46875, 1.015625, 2.109375, -0.921875, 0.90625, 1.25, 1.203125, -0.3125, 0.234375, -0.046875, 0.96875, 0.15625,
    -0.328125, 2.96875, -0.1875, -0.375, 1.21875, 1.828125, -0.484375, 0.15625, -0.453125, -1.96875, -0.078125,
    1.296875, -0.984375, -0.796875, -0.21875, -0.15625, -0.265625, -0.5625, 0.78125, -0.078125, -1.21875, -0.8125,
    1.5625, 0.515625, -0.9375, -0.953125, 0.578125, -0.609375,
];

const STRIDE_2: [f32; 12] = [
    -0.46875, 2.109375, 0.90625, 0.96875, -0.328125, -0.1875, -0.453125, -0.078125, -0.984375, 0.78125, -1.21875,
    1.5625,
];

const TRANSPOSED: [f32; 48] = [
    0.734375, 0.578125, 0.640625, 0.40625, 0.890625, 0.578125, 0.421875, 0.671875, 0.171875, 0.546875, 0.265625,
    0.765625, 0.265625, 0.578125, 0.171875, 0.40625, 0.421875, 0.578125, 0.890625, 0.390625, 0.640625, 0.265625,
    0.734375, 0.484375, -0.234375, -1.0, -0.4375, 0.34375, -0.296875, -0.203125, -0.140625, -0.296875, -0.296875,
    -0.53125, -0.109375, -0.421875, -0.046875, -1.15625, -0.25, 0.1875, -0.109375, -0.359375, -0.234375, 0.078125,
    -0.390625, -0.15625, -0.203125, -0.046875,
];

const UP_ALIGNED: [f32; 42] = [
    -0.625,
    -0.04166665,
    0.08333331,
    -0.25,
    0.3333334,
    0.4583333,
    0.125,
    -0.475,
    0.1083334,
    0.2333333,
    -0.09999999,
    -0.06666668,
    0.05833337,
    0.275,
    -0.325,
    0.07499997,
    0.2,
    0.05000001,
    -0.2833334,
    -0.1583332,
    0.425,
    -0.175,
    -0.3250001,
    -0.2,
    0.2,
    -0.1333334,
    -0.008333154,
    0.575,
    -0.02499998,
    -0.3583333,
    -0.2333333,
    0.35,
    0.01666665,
    -0.04166663,
    0.1749999,
    0.125,
    -0.2083333,
    -0.0833333,
    0.5,
    0.1666666,
    -0.1666667,
    -0.5,
];

const UP_OUTER: [f32; 42] = [
    -0.625,
    -0.125,
    0.1071428,
    -0.25,
    0.3750001,
    0.4107143,
    0.125,
    -0.5,
    1.490116e-08,
    0.2321428,
    -0.125,
    0.008928597,
    0.1428571,
    0.25,
    -0.3333333,
    0.03571426,
    0.235119,
    0.04166669,
    -0.3154762,
    -0.08333328,
    0.4166667,
    -0.1666667,
    -0.3214286,
    -0.2529761,
    0.2083333,
    -0.1488096,
    0.08333337,
    0.5833333,
    0.0,
    -0.2857143,
    -0.2499999,
    0.375,
    0.01785707,
    -0.04464285,
    0.0625,
    0.125,
    -0.1607143,
    -0.1249999,
    0.5,
    0.1428571,
    -0.2142857,
    -0.5,
];

const SAMPLED: [f32; 12] = [-0.421875, 0.15, 0.28125, 0.0, 0.0, 0.0, 0.253125, -0.225, 0.04687499, 0.0, 0.0, 0.0];
