//! The same pictures through two models: how much accuracy was lost, and how sure that is.
//!
//! Pictures that both get right, or both wrong, say nothing about the difference. With b pictures that only the
//! reference gets right ("worse"), c that only the model gets right ("better") and n in all, the difference of the
//! accuracies is d = (c - b) / n. Its interval is Wald's for matched pairs after half a picture is added to each of the
//! four outcomes (Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions",
//! Statistics in Medicine 24, 729 to 740):
//!
//! ```text
//! N = n + 2    d' = (c - b) / N    se = sqrt((b + c + 1) - (c - b)^2 / N) / N    interval: d' - 1.96 se .. d' + 1.96 se
//! ```
//!
//! The added half pictures keep it from shrinking to nothing where b = c = 0.

use serde::Serialize;

/// The 97.5th percentile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Counts and the difference in points (percent of the pictures).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Labelled pictures that both models have seen.
    pub n: usize,
    /// Right by the reference alone.
    pub worse: usize,
    /// Right by the model alone.
    pub better: usize,
    /// The model's accuracy less the reference's, in points.
    pub points: f64,
    /// 95 % interval of `points`.
    pub low: f64,
    pub high: f64,
}

impl Verdict {
    pub fn new(n: usize, worse: usize, better: usize) -> Self {
        let difference = better as f64 - worse as f64;
        let pictures = n as f64 + 2.0;
        let variance = ((worse + better + 1) as f64 - difference * difference / pictures).max(0.0);
        let (center, half) = (100.0 * difference / pictures, 100.0 * Z * variance.sqrt() / pictures);
        let points = if n == 0 { 0.0 } else { 100.0 * difference / n as f64 };
        Self { n, worse, better, points, low: (center - half).max(-100.0), high: (center + half).min(100.0) }
    }

    /// `n=500: 7 worse, 5 better, -0.4 points, 95 % interval [-1.8, +1.0]`.
    pub fn line(&self) -> String {
        let Self { n, worse, better, .. } = self;
        let [points, low, high] = [self.points, self.low, self.high].map(signed);
        format!("n={n}: {worse} worse, {better} better, {points} points, 95 % interval [{low}, {high}]")
    }

    /// What follows from it.
    pub fn meaning(&self) -> String {
        if self.high < 0.0 {
            format!("the model is worse: it loses between {:.1} and {:.1} points", -self.high, -self.low)
        } else if self.low > 0.0 {
            format!("the model is better: it gains between {:.1} and {:.1} points", self.low, self.high)
        } else {
            format!("no difference shown, and a loss of more than {:.1} points is unlikely", -self.low)
        }
    }
}

/// One decimal with its sign, and no minus before zero.
fn signed(points: f64) -> String {
    let text = format!("{points:+.1}");
    if text == "-0.0" || text == "+0.0" { "0.0".to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: N = 502, d' = -2/502 = -0.398 points, variance 13 - 4/502 = 12.99203, se = 3.604446/502 = 0.718017
    /// points.
    #[test]
    fn a_case_computed_by_hand() {
        let v = Verdict::new(500, 7, 5);
        assert_eq!((v.n, v.worse, v.better), (500, 7, 5));
        assert!((v.points - -0.4).abs() < 1e-12);
        assert!((v.low - (-0.398_406 - 1.959_964 * 0.718_017)).abs() < 1e-4, "{}", v.low);
        assert!((v.high - (-0.398_406 + 1.959_964 * 0.718_017)).abs() < 1e-4, "{}", v.high);
        assert_eq!(v.line(), "n=500: 7 worse, 5 better, -0.4 points, 95 % interval [-1.8, +1.0]");
        assert_eq!(v.meaning(), "no difference shown, and a loss of more than 1.8 points is unlikely");
    }

    #[test]
    fn extremes_stay_sensible() {
        let equal = Verdict::new(500, 0, 0);
        assert_eq!(equal.line(), "n=500: 0 worse, 0 better, 0.0 points, 95 % interval [-0.4, +0.4]");
        let lost = Verdict::new(500, 300, 1);
        assert!(lost.high < -50.0 && lost.meaning().starts_with("the model is worse: it loses between 5"));
        assert!(Verdict::new(500, 1, 30).meaning().starts_with("the model is better"));
        let all = Verdict::new(3, 3, 0);
        assert!(all.low >= -100.0 && all.points == -100.0);
        assert_eq!(Verdict::new(0, 0, 0).points, 0.0);
    }
}
