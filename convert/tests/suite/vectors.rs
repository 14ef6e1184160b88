//! Weight quantization against tests/fixtures/numerics: what a simulation written from docs/numerics.md alone makes of
//! the same weights. Codes, sums and the bits of scales are equal.

use safetensors::SafeTensors;
use vitlet_convert::WeightScale;
use vitlet_convert::diagonal::scale_rows;
use vitlet_convert::network::Linear;
use vitlet_convert::quantize::{Packed, Values, fold_into_scale, quantize_int8};

use crate::common::root;

struct Case<'a> {
    vectors: &'a SafeTensors<'a>,
    name: String,
}

impl Case<'_> {
    fn bytes<const N: usize>(&self, part: &str) -> Vec<[u8; N]> {
        let name = format!("{}.{part}", self.name);
        let tensor = self.vectors.tensor(&name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype().bitsize(), 8 * N, "{name}");
        tensor.data().as_chunks().0.to_vec()
    }

    fn floats(&self, part: &str) -> Vec<f32> {
        self.bytes(part).into_iter().map(f32::from_le_bytes).collect()
    }

    fn check(&self, packed: &Packed, prefix: &str) {
        let Values::Int8 { codes, sums } = &packed.values else { panic!("int8 values") };
        let want: Vec<i8> = self.bytes(&format!("{prefix}codes")).into_iter().map(i8::from_le_bytes).collect();
        assert_eq!(*codes, want, "{} {prefix}", self.name);
        let bits = |scale: &[f32]| scale.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&packed.scale), bits(&self.floats(&format!("{prefix}scale"))), "{} {prefix}", self.name);
        let rows = want.chunks_exact(packed.k).map(|row| row.iter().map(|&c| i32::from(c)).sum::<i32>());
        assert!(sums.iter().copied().eq(rows), "{} {prefix}", self.name);
    }
}

#[test]
fn codes_and_scales_are_those_of_the_vectors() {
    let bytes = std::fs::read(root().join("tests/fixtures/numerics/operations.safetensors")).expect("vectors");
    let vectors = SafeTensors::deserialize(&bytes).expect("safetensors");
    for (n, k) in [(1, 1), (5, 16), (18, 37)] {
        let case = Case { vectors: &vectors, name: format!("weight.{n}x{k}") };
        let linear = Linear { n, k, weight: case.floats("w"), bias: vec![0.0; n] };
        let gamma = case.floats("gamma");

        let mut packed = quantize_int8(&linear, WeightScale::PerChannel);
        case.check(&packed, "");
        let Values::Int8 { sums, .. } = &packed.values else { panic!("int8 values") };
        assert!(sums.iter().map(|sum| sum.to_le_bytes()).eq(case.bytes("sum")), "{}", case.name);
        fold_into_scale(&mut packed, &gamma);
        case.check(&packed, "fold.");

        case.check(&quantize_int8(&linear, WeightScale::PerTensor), "tensor.");
        let mut scaled = linear;
        scale_rows(&mut scaled, &gamma);
        case.check(&quantize_int8(&scaled, WeightScale::PerChannel), "fold_weights.");
    }
}
