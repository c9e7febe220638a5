//! Draws from a seed: SplitMix64 (Steele, Lea and Flood 2014), and the distributions made of it.

use std::f64::consts::TAU;

use super::scenario::Work;

/// A sequence of chance, the same for the same seed.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, at most 1.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// One of `count`, at least 1.
    pub fn below(&mut self, count: usize) -> usize {
        (self.bits() % count as u64) as usize
    }

    /// Exponential with mean 1.
    pub fn gap(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// The work of a request, of mean 1.
    pub fn work(&mut self, work: Work) -> f64 {
        match work {
            Work::Constant {} => 1.0,
            Work::Exponential {} => self.gap(),
            Work::Lognormal { cv } => {
                let variance = (1.0 + cv * cv).ln();
                (self.normal() * variance.sqrt() - variance / 2.0).exp()
            }
            Work::Bimodal { share, ratio } => {
                let short = 1.0 / (1.0 - share + share * ratio);
                if self.unit() <= share { short * ratio } else { short }
            }
        }
    }

    /// Standard normal (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        (2.0 * self.gap()).sqrt() * (TAU * self.unit()).cos()
    }
}
