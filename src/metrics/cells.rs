//! The numbers themselves: counters and histograms on atomics, in two ways of writing.
//!
//! `bump` is for cells with one writer, a data worker's own: a load and a store, no locked instruction.
//! `add` is for cells that any thread writes. Reading is the same for both, at scrape. A cell that
//! was bumped by two threads at once may lose counts; it can do no other harm.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Upper bounds of a histogram's buckets, ascending, in the unit of the cells.
#[derive(Debug)]
pub(super) struct Bounds<const N: usize> {
    /// Inclusive upper bounds.
    upper: [u64; N],
    /// Cell units in one unit of the exposition: 1e9 for nanoseconds shown as seconds.
    scale: f64,
}

/// OPS 8 "L": 25 µs to 10 s, in nanoseconds.
pub(super) const LATENCY: Bounds<18> = Bounds {
    upper: [
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
        10_000_000_000,
    ],
    scale: 1e9,
};

/// OPS 8 "E": 1 µs to 25 ms, in nanoseconds.
pub(super) const EVALUATION: Bounds<12> = Bounds {
    upper: [
        1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
        25_000_000,
    ],
    scale: 1e9,
};

/// OPS 8 "S": 1 s to one day, in milliseconds: a busy day of old answers must not overflow the sum.
pub(super) const AGE: Bounds<9> = Bounds {
    upper: [
        1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 3_600_000, 21_600_000, 86_400_000,
    ],
    scale: 1e3,
};

/// OPS 8 "B": 256 B to 4 MiB.
pub(super) const BYTES: Bounds<8> = Bounds {
    upper: [
        256,
        1 << 10,
        4 << 10,
        16 << 10,
        64 << 10,
        256 << 10,
        1 << 20,
        4 << 20,
    ],
    scale: 1.0,
};

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// One more; for the cell's only writer.
    #[inline]
    pub(super) fn bump(&self) {
        self.bump_by(1);
    }

    /// `n` more; for the cell's only writer.
    #[inline]
    pub(super) fn bump_by(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// One more, from any thread.
    pub(super) fn add(&self) {
        self.add_by(1);
    }

    /// `n` more, from any thread.
    pub(super) fn add_by(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The number.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A point in time that moves: seconds since 1970; 0 = never.
#[derive(Debug, Default)]
pub(super) struct Moment(AtomicU64);

impl Moment {
    /// It is now.
    pub(super) fn mark(&self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0
            .store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Seconds since 1970; 0 = never.
    pub(super) fn seconds(&self) -> f64 {
        self.0.load(Relaxed) as f64 / 1e3
    }
}

/// A histogram of `CELLS` buckets: one per bound and the last one for everything above.
#[derive(Debug)]
pub(super) struct Histogram<const CELLS: usize> {
    cells: [Count; CELLS],
    sum: Count,
}

/// A histogram with the bounds [`LATENCY`].
pub(super) type LatencyHistogram = Histogram<19>;
/// A histogram with the bounds [`EVALUATION`].
pub(super) type EvaluationHistogram = Histogram<13>;
/// A histogram with the bounds [`AGE`].
pub(super) type AgeHistogram = Histogram<10>;
/// A histogram with the bounds [`BYTES`].
pub(super) type BytesHistogram = Histogram<9>;

impl<const CELLS: usize> Default for Histogram<CELLS> {
    fn default() -> Self {
        Self {
            cells: [const { Count(AtomicU64::new(0)) }; CELLS],
            sum: Count::default(),
        }
    }
}

impl<const CELLS: usize> Histogram<CELLS> {
    /// One observation; for the histogram's only writer.
    #[inline]
    pub(super) fn bump<const N: usize>(&self, bounds: &Bounds<N>, value: u64) {
        self.cell(bounds, value).bump();
        self.sum.bump_by(value);
    }

    /// One observation, from any thread.
    pub(super) fn add<const N: usize>(&self, bounds: &Bounds<N>, value: u64) {
        self.cell(bounds, value).add();
        self.sum.add_by(value);
    }

    /// Observations.
    pub(super) fn count(&self) -> u64 {
        self.cells.iter().map(Count::get).sum()
    }

    #[inline]
    fn cell<const N: usize>(&self, bounds: &Bounds<N>, value: u64) -> &Count {
        const { assert!(CELLS == N + 1, "one bucket per bound and one above") };
        // Most values fall into the first buckets: a plain walk beats a binary search.
        let mut at = 0;
        while at < N && value > bounds.upper[at] {
            at += 1;
        }
        &self.cells[at]
    }
}

/// Several histograms of the same bounds, added up at scrape.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    /// Upper bound in the exposition's unit and observations in this bucket alone.
    buckets: Vec<(f64, u64)>,
    above: u64,
    sum: f64,
}

impl Totals {
    /// Nothing observed yet.
    pub(super) fn new<const N: usize>(bounds: &Bounds<N>) -> Self {
        let buckets = bounds
            .upper
            .iter()
            .map(|upper| (*upper as f64 / bounds.scale, 0))
            .collect();
        Self {
            buckets,
            above: 0,
            sum: 0.0,
        }
    }

    /// Adds what `histogram`, which has the same bounds, has seen.
    pub(super) fn add<const CELLS: usize, const N: usize>(
        &mut self,
        bounds: &Bounds<N>,
        histogram: &Histogram<CELLS>,
    ) {
        for (at, cell) in histogram.cells.iter().enumerate() {
            match self.buckets.get_mut(at) {
                Some(bucket) => bucket.1 += cell.get(),
                None => self.above += cell.get(),
            }
        }
        self.sum += histogram.sum.get() as f64 / bounds.scale;
    }

    /// Upper bounds with the number of observations up to them.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.buckets.iter().scan(0, |below, (upper, here)| {
            *below += here;
            Some((*upper, *below))
        })
    }

    /// Observations.
    pub(super) fn count(&self) -> u64 {
        self.above + self.buckets.iter().map(|(_, here)| here).sum::<u64>()
    }

    /// The value that a share of `share` (0 to 1) of the observations does not exceed, interpolated within its
    /// bucket; the highest bound if it lies above; none without observations.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.count() as f64 * share;
        if self.count() == 0 {
            return None;
        }
        let (mut below, mut lower) = (0.0, 0.0);
        for (upper, here) in &self.buckets {
            let here = *here as f64;
            if here > 0.0 && below + here >= wanted {
                return Some(lower + (upper - lower) * ((wanted - below) / here));
            }
            below += here;
            lower = *upper;
        }
        Some(lower)
    }

    /// Their sum, in the exposition's unit.
    pub(super) const fn sum(&self) -> f64 {
        self.sum
    }
}

/// A duration as a cell holds it.
#[inline]
pub(super) fn nanoseconds(took: Duration) -> u64 {
    took.as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(took.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() {
        for (value, bucket) in [
            (0, 0),
            (256, 0),
            (257, 1),
            (1_024, 1),
            (4 << 20, 7),
            ((4 << 20) + 1, 8),
        ] {
            let histogram = BytesHistogram::default();
            histogram.bump(&BYTES, value);
            let seen: Vec<u64> = histogram.cells.iter().map(Count::get).collect();
            assert_eq!(
                seen.iter().position(|count| *count == 1),
                Some(bucket),
                "{value}: {seen:?}"
            );
            assert_eq!(histogram.sum.get(), value);
        }
    }

    #[test]
    fn totals_are_cumulative_and_in_seconds() {
        let (one, two) = (LatencyHistogram::default(), LatencyHistogram::default());
        one.bump(&LATENCY, nanoseconds(Duration::from_micros(25)));
        two.add(&LATENCY, nanoseconds(Duration::from_millis(2)));
        two.add(&LATENCY, nanoseconds(Duration::from_secs(60)));
        let mut totals = Totals::new(&LATENCY);
        totals.add(&LATENCY, &one);
        totals.add(&LATENCY, &two);
        let buckets: Vec<(f64, u64)> = totals.cumulative().collect();
        assert_eq!(buckets[0], (0.000_025, 1));
        assert_eq!(buckets[5], (0.001, 1));
        assert_eq!(buckets[6], (0.002_5, 2));
        assert_eq!(buckets[17], (10.0, 2));
        assert_eq!(totals.count(), 3);
        assert!((totals.sum() - 60.002_025).abs() < 1e-9);
    }

    #[test]
    fn quantiles_are_interpolated_and_bounded() {
        let histogram = BytesHistogram::default();
        let quantile = |share| {
            let mut totals = Totals::new(&BYTES);
            totals.add(&BYTES, &histogram);
            totals.quantile(share)
        };
        assert_eq!(quantile(0.5), None);
        for value in [1, 2, 300, 301] {
            histogram.bump(&BYTES, value);
        }
        assert_eq!(quantile(0.25), Some(128.0));
        assert_eq!(quantile(0.5), Some(256.0));
        assert_eq!(quantile(0.75), Some(640.0));
        histogram.bump(&BYTES, u64::from(u32::MAX));
        assert_eq!(quantile(1.0), Some(4_194_304.0));
    }

    #[test]
    fn bounds_ascend() {
        fn ascending(bounds: &[u64]) -> bool {
            bounds.windows(2).all(|pair| pair[0] < pair[1])
        }
        assert!(ascending(&LATENCY.upper) && ascending(&EVALUATION.upper));
        assert!(ascending(&AGE.upper) && ascending(&BYTES.upper));
    }

    #[test]
    fn a_duration_too_long_for_a_cell_is_the_longest_one() {
        assert_eq!(nanoseconds(Duration::MAX), u64::MAX);
    }
}
