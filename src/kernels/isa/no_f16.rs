//! For instruction sets without arithmetic in f16.

use core::convert::Infallible;
use core::marker::PhantomData;

use super::F16;
use crate::lanes::F16x16;

/// No arithmetic in f16: a type without values.
#[derive(Clone, Copy)]
pub(crate) struct NoF16<F>(Infallible, PhantomData<F>);

impl<F: Copy> F16 for NoF16<F> {
    type F = F;

    #[inline(always)]
    fn store(self, _: F, _: &mut F16x16) {
        match self.0 {}
    }

    #[inline(always)]
    fn dot<const M: usize, const N: usize>(
        self,
        _: [&[F16x16]; M],
        _: usize,
        _: [&[F16x16]; N],
        _: usize,
    ) -> [[F; N]; M] {
        match self.0 {}
    }
}
