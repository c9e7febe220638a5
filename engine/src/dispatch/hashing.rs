//! Which target a hash belongs to, so that equal requests meet at one target and few of them move when targets
//! come or go. Both know targets by a number made of their name, so that several gateways agree.
//!
//! * Ring: points of each target on a circle, a request goes to the next one clockwise (Karger et al.,
//!   "Consistent hashing and random trees", 1997; weights as in Ketama).
//! * Maglev: a table filled in turns by each target's own permutation (Eisenbud et al., "Maglev", NSDI 2016).
//!
//! With a bound on load no target gets more than a multiple of the mean; what is too much goes on to the next
//! (Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", 2018).

/// Points of a target of weight 100 on the ring.
const POINTS: u64 = 160;
/// Slots of the table: a prime, so that every permutation visits all; a hundred times the targets or so.
const SLOTS: usize = 16_381;

/// A target as hashing knows it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Where it is among the service's targets.
    pub index: usize,
    /// Made of its name.
    pub name: u64,
    /// Its share, 100 as usual. Maglev's slots are dealt out evenly.
    pub weight: u32,
}

/// Targets in the order in which they are asked for a hash.
#[derive(Debug, Default)]
pub struct Ring(Vec<(u64, usize)>);

impl Ring {
    /// A ring of these targets.
    pub fn new(members: &[Member]) -> Self {
        let points = |member: &Member| {
            let member = *member;
            let count = (POINTS * u64::from(member.weight)).div_ceil(100).max(1);
            (0..count).map(move |number| (mix(member.name ^ mix(number)), member.index))
        };
        let mut ring: Vec<_> = members.iter().flat_map(points).collect();
        ring.sort_unstable();
        Self(ring)
    }

    /// The targets for a hash, the first as often as it comes up on the way round.
    pub fn order(&self, hash: u64) -> impl Iterator<Item = usize> {
        let hash = mix(hash);
        let start = self.0.partition_point(|(point, _)| *point < hash);
        self.0[start..].iter().chain(&self.0[..start]).map(|(_, index)| *index)
    }
}

/// Maglev's table.
#[derive(Debug, Default)]
pub struct Table(Vec<usize>);

impl Table {
    /// A table of these targets.
    pub fn new(members: &[Member]) -> Self {
        if members.is_empty() {
            return Self::default();
        }
        let mut members = members.to_vec();
        members.sort_unstable_by_key(|member| member.name);
        let slots = SLOTS as u64;
        let mut nexts: Vec<(u64, u64, usize)> = members
            .iter()
            .map(|member| (mix(member.name) % slots, mix(!member.name) % (slots - 1) + 1, member.index))
            .collect();
        let mut table = vec![usize::MAX; SLOTS];
        let mut left = SLOTS;
        loop {
            for (next, skip, index) in &mut nexts {
                while table[*next as usize] != usize::MAX {
                    *next = (*next + *skip) % slots;
                }
                table[*next as usize] = *index;
                left -= 1;
                if left == 0 {
                    return Self(table);
                }
            }
        }
    }

    /// The targets for a hash, as [`Ring::order`] has it.
    pub fn order(&self, hash: u64) -> impl Iterator<Item = usize> {
        let start = if self.0.is_empty() { 0 } else { (mix(hash) % self.0.len() as u64) as usize };
        self.0[start..].iter().chain(&self.0[..start]).copied()
    }
}

/// The number of a name: FNV-1a, 64 bit.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Spreads a number over all 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: usize) -> Vec<Member> {
        (0..count).map(|index| Member { index, name: hash(format!("web-{index}").as_bytes()), weight: 100 }).collect()
    }

    /// How many of 10 000 hashes each target gets, and where each goes.
    fn dealt(order: impl Fn(u64) -> usize, count: usize) -> (Vec<usize>, Vec<usize>) {
        let went: Vec<usize> = (0..10_000).map(order).collect();
        ((0..count).map(|index| went.iter().filter(|at| **at == index).count()).collect(), went)
    }

    #[test]
    fn hashes_are_spread_evenly() {
        let (ring, table) = (Ring::new(&members(8)), Table::new(&members(8)));

        let (by_ring, _) = dealt(|hash| ring.order(hash).next().unwrap(), 8);
        let (by_table, _) = dealt(|hash| table.order(hash).next().unwrap(), 8);

        assert!(by_ring.iter().all(|share| (900..1700).contains(share)), "{by_ring:?}");
        assert!(by_table.iter().all(|share| (1100..1400).contains(share)), "{by_table:?}");
    }

    #[test]
    fn few_hashes_move_when_a_target_goes() {
        let (all, fewer) = (members(8), members(7));
        let moved = |before: Vec<usize>, after: Vec<usize>| {
            before.iter().zip(&after).filter(|(before, after)| **before != 7 && before != after).count()
        };
        let (ring, less_ring) = (Ring::new(&all), Ring::new(&fewer));
        let (table, less_table) = (Table::new(&all), Table::new(&fewer));

        let by_ring = moved(
            dealt(|hash| ring.order(hash).next().unwrap(), 8).1,
            dealt(|hash| less_ring.order(hash).next().unwrap(), 8).1,
        );
        let by_table = moved(
            dealt(|hash| table.order(hash).next().unwrap(), 8).1,
            dealt(|hash| less_table.order(hash).next().unwrap(), 8).1,
        );

        assert_eq!(by_ring, 0);
        assert!(by_table < 600, "{by_table}");
    }

    #[test]
    fn a_heavier_target_gets_more_of_the_ring() {
        let mut members = members(2);
        members[0].weight = 300;
        let ring = Ring::new(&members);

        let (shares, _) = dealt(|hash| ring.order(hash).next().unwrap(), 2);

        assert!((6500..8500).contains(&shares[0]), "{shares:?}");
    }
}
