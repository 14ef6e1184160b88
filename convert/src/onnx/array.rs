//! Dense arrays and the ONNX operators that only move elements. They serve three kinds of elements: numbers (constants
//! are folded with them), indices (where does this element come from?) and `()` (what shape comes out?).

/// Elements row by row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array<T> {
    pub shape: Vec<usize>,
    pub data: Vec<T>,
}

/// More elements than any ViT's tensor has: shapes beyond it are hostile.
const MOST: usize = match 1_usize.checked_shl(32) {
    Some(most) => most,
    None => usize::MAX,
};
/// More elements than any ViT's tensor has whose elements are moved here, and not only its shape.
const MOST_MOVED: usize = 1 << 28;
/// The same for indices, which no file has to store: 270 MB of them, twice while they are moved.
const MOST_INDICES: usize = 1 << 26;

/// The number of elements of a shape, if it is sane: then no product of some of its lengths overflows, beside a length
/// of 0 either.
pub(crate) fn len_of(shape: &[usize]) -> Option<usize> {
    let most = shape.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1))).filter(|n| *n <= MOST)?;
    Some(if shape.contains(&0) { 0 } else { most })
}

/// The same where memory is taken for each element.
fn room<T>(shape: &[usize]) -> Option<usize> {
    len_of(shape).filter(|n| size_of::<T>() == 0 || *n <= MOST_MOVED)
}

/// An axis that may count from the end.
pub(crate) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let positive = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(positive).ok().filter(|a| *a < rank)
}

/// Elements from one step of an axis to the next.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

impl Array<u32> {
    /// Each element is its own index.
    pub(crate) fn indices(shape: &[usize]) -> Option<Self> {
        let len = Self::room(shape)? as u32;
        Some(Self { shape: shape.to_vec(), data: (0..len).collect() })
    }

    /// The number of elements of a shape, if as many indices are held.
    pub(crate) fn room(shape: &[usize]) -> Option<usize> {
        len_of(shape).filter(|n| *n <= MOST_INDICES)
    }

    /// Whether every element still stands where it was.
    pub(crate) fn in_place(&self) -> bool {
        self.data.iter().enumerate().all(|(i, x)| i == *x as usize)
    }
}

impl Array<()> {
    /// A shape alone.
    pub(crate) fn shaped(shape: &[usize]) -> Option<Self> {
        Some(Self { shape: shape.to_vec(), data: vec![(); len_of(shape)?] })
    }
}

impl<T: Copy> Array<T> {
    pub(crate) fn new(shape: Vec<usize>, data: Vec<T>) -> Option<Self> {
        (len_of(&shape)? == data.len()).then_some(Self { shape, data })
    }

    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The same elements in another shape.
    pub(crate) fn reshaped(&self, shape: Vec<usize>) -> Option<Self> {
        Self::new(shape, self.data.clone())
    }

    /// ONNX's Reshape: 0 copies a length (unless `allow_zero`), -1 takes the rest.
    pub(crate) fn reshape(&self, to: &[i64], allow_zero: bool) -> Option<Self> {
        let mut shape = Vec::with_capacity(to.len());
        for (i, &n) in to.iter().enumerate() {
            shape.push(match n {
                0 if !allow_zero => *self.shape.get(i)?,
                -1 => 1,
                n => usize::try_from(n).ok()?,
            });
        }
        if let Some(open) = to.iter().position(|n| *n == -1) {
            let known = len_of(&shape)?;
            shape[open] = self.data.len().checked_div(known).unwrap_or(0);
        }
        self.reshaped(shape)
    }

    /// Picks element `source(index of the output)` for every index of `shape`, where a source index is a sum over axes.
    fn gathered(&self, shape: Vec<usize>, start: usize, steps: &[isize]) -> Option<Self> {
        let len = room::<T>(&shape)?;
        if size_of::<T>() == 0 {
            // A shape alone: which element comes from where does not matter.
            let data = if len == 0 { vec![] } else { vec![*self.data.first()?; len] };
            return Some(Self { shape, data });
        }
        let mut data = Vec::with_capacity(len);
        let mut index = vec![0usize; shape.len()];
        let mut at = start as isize;
        for _ in 0..len {
            data.push(*self.data.get(usize::try_from(at).ok()?)?);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                at += steps[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                at -= steps[axis] * shape[axis] as isize;
                index[axis] = 0;
            }
        }
        Some(Self { shape, data })
    }

    pub(crate) fn transpose(&self, perm: &[usize]) -> Option<Self> {
        let mut seen = perm.to_vec();
        seen.sort_unstable();
        if !seen.iter().copied().eq(0..self.rank()) {
            return None;
        }
        let strides = strides(&self.shape);
        let steps: Vec<isize> = perm.iter().map(|&p| strides[p] as isize).collect();
        self.gathered(perm.iter().map(|&p| self.shape[p]).collect(), 0, &steps)
    }

    /// The elements `start, start + step, ...` (`count` of them) of an axis.
    pub(crate) fn slice(&self, axis: usize, start: usize, step: isize, count: usize) -> Option<Self> {
        let strides = strides(&self.shape);
        let mut shape = self.shape.clone();
        let n = std::mem::replace(shape.get_mut(axis)?, count);
        if let Some(steps) = count.checked_sub(1) {
            let last = step.checked_mul(isize::try_from(steps).ok()?)?.checked_add(isize::try_from(start).ok()?)?;
            if start >= n || usize::try_from(last).map_or(true, |last| last >= n) {
                return None;
            }
        }
        let mut steps: Vec<isize> = strides.iter().map(|&s| s as isize).collect();
        // No step is made to a second element that is not there.
        steps[axis] = if count > 1 { steps[axis].checked_mul(step)? } else { 0 };
        self.gathered(shape, start.checked_mul(strides[axis])?, &steps)
    }

    /// ONNX's Gather along `axis`.
    pub(crate) fn gather(&self, axis: usize, indices: &Array<i64>) -> Option<Self> {
        let n = *self.shape.get(axis)?;
        let inner: usize = self.shape[axis + 1..].iter().product();
        let outer: usize = self.shape[..axis].iter().product();
        let picks: Vec<usize> = indices.data.iter().map(|i| axis_of(*i, n)).collect::<Option<_>>()?;
        let shape = [&self.shape[..axis], &indices.shape, &self.shape[axis + 1..]].concat();
        let mut data = Vec::with_capacity(room::<T>(&shape)?);
        for o in 0..outer {
            for pick in &picks {
                data.extend_from_slice(self.data.get((o * n + pick) * inner..)?.get(..inner)?);
            }
        }
        Self::new(shape, data)
    }

    /// Repeats along axes of length 1, as NumPy broadcasts.
    pub(crate) fn broadcast(&self, shape: &[usize]) -> Option<Self> {
        if self.shape == shape {
            return Some(self.clone());
        }
        let missing = shape.len().checked_sub(self.rank())?;
        let own = strides(&self.shape);
        let mut steps = vec![0isize; shape.len()];
        for (axis, &n) in self.shape.iter().enumerate() {
            match (n, shape[missing + axis]) {
                (n, want) if n == want => steps[missing + axis] = own[axis] as isize,
                (1, _) => {}
                _ => return None,
            }
        }
        self.gathered(shape.to_vec(), 0, &steps)
    }

    pub(crate) fn concat(parts: &[&Self], axis: usize) -> Option<Self> {
        let first = parts.first()?;
        let mut shape = first.shape.clone();
        let fits = |p: &&&Self| {
            p.rank() == first.rank()
                && p.shape.iter().zip(&first.shape).enumerate().all(|(i, (a, b))| i == axis || a == b)
        };
        if axis >= shape.len() || !parts.iter().all(|p| fits(&p)) {
            return None;
        }
        shape[axis] = parts.iter().try_fold(0usize, |n, p| n.checked_add(p.shape[axis]))?;
        let outer: usize = shape[..axis].iter().product();
        let mut data = Vec::with_capacity(room::<T>(&shape)?);
        for o in 0..outer {
            for p in parts {
                let run: usize = p.shape[axis..].iter().product();
                data.extend_from_slice(&p.data[o * run..(o + 1) * run]);
            }
        }
        Self::new(shape, data)
    }

    /// Without the axes of length 1 in `axes`, or without all of them.
    pub(crate) fn squeeze(&self, axes: Option<&[i64]>) -> Option<Self> {
        let gone: Vec<usize> = match axes {
            None => (0..self.rank()).filter(|a| self.shape[*a] == 1).collect(),
            Some(axes) => axes.iter().map(|a| axis_of(*a, self.rank())).collect::<Option<_>>()?,
        };
        if gone.iter().any(|a| self.shape[*a] != 1) {
            return None;
        }
        let keep = (0..self.rank()).filter(|a| !gone.contains(a));
        self.reshaped(keep.map(|a| self.shape[a]).collect())
    }

    /// With axes of length 1 at the places `axes` of the result.
    pub(crate) fn unsqueeze(&self, axes: &[i64]) -> Option<Self> {
        let rank = self.rank() + axes.len();
        let new: Vec<usize> = axes.iter().map(|a| axis_of(*a, rank)).collect::<Option<_>>()?;
        let mut old = self.shape.iter();
        let shape = (0..rank).map(|a| if new.contains(&a) { Some(1) } else { old.next().copied() });
        self.reshaped(shape.collect::<Option<_>>()?)
    }
}

/// The shape that NumPy broadcasts two shapes to.
pub(crate) fn broadcast_shapes(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let side = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |at| s[at]);
    (0..rank)
        .map(|i| match (side(a, i), side(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(shape: &[usize]) -> Array<u32> {
        Array::indices(shape).expect("indices")
    }

    #[test]
    fn moves() {
        let a = array(&[2, 3]);
        assert_eq!(a.transpose(&[1, 0]).expect("moved").data, [0, 3, 1, 4, 2, 5]);
        assert_eq!(a.transpose(&[1, 1]), None);
        assert_eq!(a.slice(1, 2, -1, 2).expect("moved").data, [2, 1, 5, 4]);
        assert_eq!(a.slice(1, 2, 1, 2), None);
        assert_eq!(a.slice(0, 1, isize::MAX, 1).expect("moved").data, [3, 4, 5]);
        assert_eq!(a.slice(0, 2, isize::MIN, 0).expect("moved").shape, [0, 3]);
        assert_eq!(a.slice(0, 1, isize::MIN, 2), None);
        let picks = Array::new(vec![], vec![-1]).expect("a scalar");
        assert_eq!(a.gather(1, &picks), Array::new(vec![2], vec![2, 5]));
        assert_eq!(a.reshape(&[-1, 2], false).expect("moved").shape, [3, 2]);
        assert_eq!(a.reshape(&[0, -1, 1], false).expect("moved").shape, [2, 3, 1]);
        assert_eq!(a.reshape(&[4], false), None);
        assert_eq!(a.unsqueeze(&[0, -1]).expect("moved").shape, [1, 2, 3, 1]);
        assert_eq!(a.unsqueeze(&[0, -1]).and_then(|x| x.squeeze(None)), Some(a.clone()));
        assert_eq!(Array::concat(&[&a, &a], 1).expect("moved").data, [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        assert_eq!(array(&[2, 1]).broadcast(&[2, 2]).expect("moved").data, [0, 0, 1, 1]);
        assert_eq!(broadcast_shapes(&[3, 1], &[2, 1, 4]), Some(vec![2, 3, 4]));
        assert_eq!(broadcast_shapes(&[3], &[2]), None);
        assert_eq!(Array::shaped(&[usize::MAX, 2]), None);
        assert_eq!(Array::shaped(&[0, usize::MAX, 2]), None);
        assert_eq!(array(&[2, 0, 3]).transpose(&[2, 0, 1]).expect("moved").shape, [3, 2, 0]);
    }
}
