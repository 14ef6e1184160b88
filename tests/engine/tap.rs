//! Taps: every token of every place comes once, on any number of threads, and looking changes nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;

use vitlet::{Kernels, Model, Output, Place, Plan, Precision, RunConfig, Tap, ThreadPool};
use vitlet_convert::Options;

use crate::common::{checkpoint, convert, npy, of_nan};

/// Every token that came, by place.
#[derive(Default)]
struct Seen(Mutex<Tokens>);

type Tokens = BTreeMap<(Place, usize), Vec<f32>>;

impl Tap for Seen {
    fn rows(&self, rows: vitlet::Rows<'_>) {
        for (i, row) in rows.values.chunks_exact(rows.width).enumerate() {
            let before = self.0.lock().unwrap().insert((rows.place, rows.first + i), row.to_vec());
            assert!(before.is_none(), "{:?}, token {}, twice", rows.place, rows.first + i);
        }
    }
}

/// Every token that a run on so many threads shows, and what the run returns: the same as without looking.
fn look(model: &Model<'_>, input: &[f32], threads: usize, output: Output) -> (Tokens, Vec<f32>) {
    let (seen, pool) = (Seen::default(), ThreadPool::new(threads).unwrap());
    let plan = Plan::new(model, &RunConfig::new(Kernels::detect()).outputs(&[output]), threads).unwrap();
    let mut scratch = of_nan(&plan);
    let mut session = plan.open(model, &pool, &mut scratch).unwrap();
    let plain = session.run_tensor(input).unwrap().first().to_vec();
    assert_eq!(session.tap_tensor(input, &seen).unwrap().first(), plain, "looking changes nothing");
    (seen.0.into_inner().unwrap(), plain)
}

#[test]
fn every_token_of_every_place_is_shown_once() {
    let source = checkpoint("timm_reg4_gap");
    let (_, inputs) = npy(&source.join("input.npy"));
    for precision in [Precision::Int8, Precision::F32] {
        let bytes = convert(&source, &Options { precision, ..Options::default() }).bytes;
        let model = Model::parse(&bytes).unwrap();
        let c = model.config();
        let input = &inputs[..c.input_len()];
        let (seen, tokens) = look(&model, input, 1, Output::Tokens);
        let block = |i| [Place::Heads(i), Place::Attention(i), Place::Mlp(i)];
        let places: Vec<_> = [Place::Embedding].into_iter().chain((0..c.depth).flat_map(block)).collect();
        assert_eq!(seen.len(), places.len() * c.tokens());
        assert!(places.iter().all(|&place| (0..c.tokens()).all(|t| seen.contains_key(&(place, t)))));
        assert_eq!(look(&model, input, 3, Output::Tokens).0, seen, "on three threads");
        assert_eq!(tokens.len(), c.patches() * c.dim);
    }
}

#[test]
fn convnext_shows_the_tokens_of_each_stage() {
    let source = checkpoint("timm_convnext");
    let (_, inputs) = npy(&source.join("input.npy"));
    let bytes = convert(&source, &Options::default()).bytes;
    let model = Model::parse(&bytes).unwrap();
    let c = model.config();
    let input = &inputs[..c.input_len()];
    let (seen, _) = look(&model, input, 1, Output::Logits);
    // Stages of 1, 2, 1 and 1 blocks over 8 x 16 tokens and a quarter as many in each next one.
    let first = [(Place::Embedding, 128, 18), (Place::Mlp(0), 128, 18), (Place::Downsampled(1), 32, 36)];
    let rest = [(Place::Mlp(1), 32, 36), (Place::Mlp(2), 32, 36), (Place::Downsampled(3), 8, 20)];
    let last = [(Place::Mlp(3), 8, 20), (Place::Downsampled(4), 2, 40), (Place::Mlp(4), 2, 40)];
    let places = [first, rest, last].concat();
    assert_eq!(seen.len(), places.iter().map(|place| place.1).sum::<usize>());
    for (place, tokens, dim) in places {
        let width = vitlet::config::pad16(dim);
        assert!((0..tokens).all(|t| seen[&(place, t)].len() == width), "{place:?}");
    }
    assert_eq!(look(&model, input, 3, Output::Logits).0, seen, "on three threads");
}

/// In XCiT the class token comes late, and patches go on beside it.
#[test]
fn xcit_shows_the_tokens_that_it_computes() {
    let source = checkpoint("timm_xcit");
    let (_, inputs) = npy(&source.join("input.npy"));
    let bytes = convert(&source, &Options::default()).bytes;
    let model = Model::parse(&bytes).unwrap();
    let c = model.config();
    let input = &inputs[..c.input_len()];
    let (all, class, patches) = (0..c.tokens(), 0..1, 1..c.tokens());
    for (output, last) in [(Output::Tokens, &all), (Output::Logits, &class)] {
        let mut expected = vec![(Place::Embedding, &all)];
        for i in 0..c.depth {
            let places = [Place::Heads(i), Place::Attention(i), Place::Local(i), Place::Mlp(i)];
            expected.extend(places.map(|place| (place, &patches)));
        }
        for i in c.depth..c.blocks() {
            let mlp = if i + 1 < c.blocks() { &all } else { last };
            expected.extend([(Place::Heads(i), &class), (Place::Attention(i), &class), (Place::Mlp(i), mlp)]);
        }
        let expected: Vec<_> =
            expected.into_iter().flat_map(|(place, rows)| rows.clone().map(move |t| (place, t))).collect();
        let (seen, _) = look(&model, input, 1, output);
        assert!(expected.iter().all(|key| seen.contains_key(key)) && seen.len() == expected.len(), "{output:?}");
        assert_eq!(look(&model, input, 3, output).0, seen, "on three threads");
    }
}
