//! Chance: the distributions of service times, drawn from a seed. Nothing here knows of requests.

/// Numbers from a seed (SplitMix64, Steele et al. 2014).
pub struct Chance(pub u64);

impl Chance {
    /// A number above 0, at most 1.
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((mixed >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// From an exponential distribution with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// From the standard normal distribution (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let (radius, angle) = ((2.0 * self.exponential()).sqrt(), std::f64::consts::TAU * self.unit());
        radius * angle.cos()
    }
}

/// How long requests take, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Service {
    /// All the same.
    Constant(f64),
    /// By their mean.
    Exponential(f64),
    /// By the mean and the standard deviation of the logarithm.
    Lognormal { mean: f64, sigma: f64 },
    /// A share takes `factor` times as long as the rest.
    Bimodal { short: f64, share: f64, factor: f64 },
}

impl Service {
    /// `constant:MS`, `exponential:MEAN`, `lognormal:MEAN:CV` or `bimodal:MEAN:SHARE:FACTOR`.
    ///
    /// # Errors
    /// In words: the text is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no service time; lognormal:10:1 would be one");
        let mut parts = text.split(':');
        let kind = parts.next().unwrap_or_default();
        let numbers: Vec<f64> = parts.map(|part| part.parse().map_err(|_| bad())).collect::<Result<_, _>>()?;
        Ok(match (kind, numbers.as_slice()) {
            ("constant", &[ms]) => Self::Constant(ms),
            ("exponential", &[mean]) => Self::Exponential(mean),
            ("lognormal", &[mean, cv]) => Self::Lognormal { mean, sigma: (1.0 + cv * cv).ln().sqrt() },
            ("bimodal", &[mean, share, factor]) => {
                Self::Bimodal { short: mean / (1.0 - share + share * factor), share, factor }
            }
            _ => return Err(bad()),
        })
    }

    /// The next request's time in milliseconds.
    pub fn draw(self, chance: &mut Chance) -> f64 {
        match self {
            Self::Constant(ms) => ms,
            Self::Exponential(mean) => mean * chance.exponential(),
            Self::Lognormal { mean, sigma } => mean * (sigma * chance.normal() - sigma * sigma / 2.0).exp(),
            Self::Bimodal { short, share, factor } => short * if chance.unit() <= share { factor } else { 1.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_distribution_has_its_mean() {
        for text in ["constant:10", "exponential:10", "lognormal:10:1", "bimodal:10:0.05:50"] {
            let service = Service::parse(text).expect("the text is right");
            let mut chance = Chance(7);
            let mean = (0..400_000).map(|_| service.draw(&mut chance)).sum::<f64>() / 400_000.0;

            assert!((9.8..10.2).contains(&mean), "{text}: {mean}");
        }
    }

    #[test]
    fn what_is_no_service_time_is_said() {
        for text in ["", "constant", "lognormal:10", "bimodal:1:2", "constant:x"] {
            assert!(Service::parse(text).is_err(), "{text}");
        }
    }
}
