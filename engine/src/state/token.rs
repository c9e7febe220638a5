//! Consistency tokens, as `unisono.state.tokens` makes and reads them: a revision that a reader has seen, signed.

use blake2::Blake2bMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};

const VERSION: u8 = 1;
const BODY: usize = 9;
const SIGNED: usize = BODY + 16;
/// Characters of a token: base64 of its bytes, with padding.
pub const CHARACTERS: usize = SIGNED.div_ceil(3) * 4;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Signs with the store's secret.
pub struct Signer {
    secret: Vec<u8>,
}

impl Signer {
    /// With a secret of 1 to 64 bytes.
    ///
    /// # Errors
    /// The secret has another length.
    pub fn try_new(secret: Vec<u8>) -> Result<Self, String> {
        match secret.len() {
            1..=64 => Ok(Self { secret }),
            found => Err(format!("the secret has {found} bytes; 1 to 64 would be right")),
        }
    }

    /// The token of a reader that has seen `revision` of the namespace under `prefix`.
    pub fn make(&self, prefix: &str, revision: u64) -> String {
        let mut packed = [0; SIGNED];
        packed[0] = VERSION;
        packed[1..BODY].copy_from_slice(&revision.to_be_bytes());
        let signature = self.mac(prefix, &packed[..BODY]).finalize().into_bytes();
        packed[BODY..].copy_from_slice(&signature);
        encode(&packed)
    }

    /// The revision in a token of that namespace; `None`: it is malformed, or of another one.
    pub fn read(&self, prefix: &str, token: &[u8]) -> Option<u64> {
        let packed = decode(token)?;
        let (body, signature) = packed.split_at(BODY);
        // Compared in constant time: the time it takes tells nothing of how much was right.
        let right = self.mac(prefix, body).verify_slice(signature).is_ok();
        let revision = body[1..].try_into().map(u64::from_be_bytes).ok()?;
        (right && body[0] == VERSION).then_some(revision)
    }

    fn mac(&self, prefix: &str, body: &[u8]) -> Blake2bMac<U16> {
        let keyed = <Blake2bMac<U16> as KeyInit>::new_from_slice(&self.secret);
        let mac = keyed.unwrap_or_else(|_| unreachable!("the length was checked when the signer was made"));
        mac.chain_update(prefix).chain_update(body)
    }
}

fn encode(packed: &[u8; SIGNED]) -> String {
    let mut text = String::with_capacity(CHARACTERS);
    for three in packed.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= three.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    text
}

fn decode(text: &[u8]) -> Option<[u8; SIGNED]> {
    let text: &[u8; CHARACTERS] = text.try_into().ok()?;
    let mut packed = [0; CHARACTERS / 4 * 3];
    for (four, three) in text.chunks_exact(4).zip(packed.chunks_exact_mut(3)) {
        let mut bits = 0_u32;
        for &character in four {
            let six = if character == b'=' { 0 } else { ALPHABET.iter().position(|&known| known == character)? };
            bits = bits << 6 | u32::try_from(six).ok()?;
        }
        three.copy_from_slice(&bits.to_be_bytes()[1..]);
    }
    let packed: [u8; SIGNED] = packed[..SIGNED].try_into().ok()?;
    // One way to write each token: what was decoded leniently must come out as it went in.
    (encode(&packed).as_bytes() == text).then_some(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::try_new(vec![7; 32]).expect("32 bytes are right")
    }

    #[test]
    fn a_token_is_that_of_the_python_side() {
        assert_eq!("AQAAAAAAAAAR2yi40MSLm6m8NwgmDopOMQ==", signer().make("state/shop/", 17));
    }

    #[test]
    fn what_is_made_is_read() {
        for revision in [0, 17, u64::MAX] {
            let token = signer().make("state/shop/", revision);

            assert_eq!(Some(revision), signer().read("state/shop/", token.as_bytes()));
        }
    }

    #[test]
    fn a_token_of_another_namespace_or_secret_is_not_read() {
        let token = signer().make("state/shop/", 17);
        let other = Signer::try_new(vec![8; 32]).expect("32 bytes are right");

        assert_eq!(
            (None, None),
            (signer().read("state/bank/", token.as_bytes()), other.read("state/shop/", token.as_bytes()))
        );
    }

    #[test]
    fn a_changed_character_is_noticed_wherever_it_stands() {
        let token = signer().make("state/shop/", 17);
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };

            assert_eq!(None, signer().read("state/shop/", &changed), "at {place}");
        }
    }
}
