//! Fields of a certificate (RFC 5280) that webpki does not expose: its validity, and what it may sign.

/// Facts of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Seconds since the Unix epoch.
    pub(super) not_before: u64,
    /// Seconds since the Unix epoch.
    pub(super) not_after: u64,
    /// How many intermediates may follow in a chain, where the certificate says so.
    pub(super) path_len: Option<usize>,
    /// Whether its key may sign certificates; so it may where no key usage is named.
    pub(super) may_sign: bool,
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const UTC_TIME: u8 = 0x17;
const OCTET_STRING: u8 = 0x04;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// The bit keyCertSign in the first byte of a key usage.
const KEY_CERT_SIGN: u8 = 0x04;

impl Facts {
    /// Reads a certificate in DER. `None` for one that breaks the grammar.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let signed = Elements(Elements(certificate).content(SEQUENCE)?).content(SEQUENCE)?;
        let mut fields = Elements(signed).filter(|(tag, _)| *tag != VERSION);
        // Behind the serial number, the algorithm and the issuer.
        let (_, validity) = fields.nth(3)?;
        let mut times = Elements(validity).map(|(tag, text)| seconds(tag, text));
        let (not_before, not_after) = (times.next()??, times.next()??);
        let mut facts = Self { not_before, not_after, path_len: None, may_sign: true };
        let extensions =
            fields.find(|(tag, _)| *tag == EXTENSIONS).and_then(|(_, list)| Elements(list).content(SEQUENCE));
        for (_, extension) in Elements(extensions.unwrap_or_default()) {
            let mut parts = Elements(extension);
            let (_, name) = parts.next()?;
            let (_, value) = parts.find(|(tag, _)| *tag == OCTET_STRING)?;
            match name {
                BASIC_CONSTRAINTS => {
                    let number = Elements(Elements(value).content(SEQUENCE)?).find(|(tag, _)| *tag == INTEGER);
                    let value =
                        |digits: &[u8]| digits.iter().fold(0, |number: usize, digit| number << 8 | usize::from(*digit));
                    facts.path_len = number.map(|(_, digits)| value(digits));
                }
                KEY_USAGE => {
                    let bits = Elements(value).content(BIT_STRING)?;
                    facts.may_sign = bits.get(1).is_some_and(|bits| bits & KEY_CERT_SIGN != 0);
                }
                _ => {}
            }
        }
        Some(facts)
    }
}

/// The elements of a DER encoding, as tags and contents. They end where the grammar is broken.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    /// The content of the first element, which must have this tag.
    fn content(mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, length], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

/// Reads a time, `YYMMDDHHMMSSZ` of 1950 to 2049 or `YYYYMMDDHHMMSSZ`, as seconds since the Unix epoch; 0 before it.
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(if tag == UTC_TIME { 2 } else { 4 })?;
    let mut year: u64 = year.parse().ok()?;
    if tag == UTC_TIME {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let mut numbers = (0..5).map(|place| rest.get(2 * place..2 * place + 2)?.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    // Years begin in March, so that the day that leaps is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    // 719,469 days from 1 March of year 0 to the end of 1969.
    let since_1970 = days.checked_sub(719_469);
    Some(since_1970.map_or(0, |days| ((days * 24 + hour) * 60 + minute) * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd};

    fn facts(change: impl FnOnce(&mut CertificateParams)) -> Facts {
        let mut params = CertificateParams::new(vec!["jarvis".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Facts::of(certificate.der()).unwrap()
    }

    #[test]
    fn the_life_of_a_certificate_is_read_in_both_forms() {
        for (from, to) in [
            ((1970, 1, 1, 0), (2049, 12, 31, 2_524_521_600)),
            ((2000, 2, 29, 951_782_400), (2050, 1, 1, 2_524_608_000)),
            ((2024, 2, 29, 1_709_164_800), (2100, 3, 1, 4_107_542_400)),
        ] {
            let read = facts(|params| {
                params.not_before = date_time_ymd(from.0, from.1, from.2);
                params.not_after = date_time_ymd(to.0, to.1, to.2);
            });
            assert_eq!((read.not_before, read.not_after), (from.3, to.3), "{from:?} {to:?}");
        }
        assert_eq!(seconds(UTC_TIME, b"261129055034Z"), Some(1_795_931_434));
        assert_eq!(seconds(0x18, b"19500101000000Z"), Some(0));
        for broken in ["", "Z", "2611290550Z", "261129055034", "26112905503xZ"] {
            assert_eq!(seconds(UTC_TIME, broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn what_an_authority_may_sign_is_read() {
        let plain = facts(|_| ());
        assert_eq!((plain.path_len, plain.may_sign), (None, true));
        let constrained = facts(|params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        });
        assert_eq!((constrained.path_len, constrained.may_sign), (Some(1), true));
        let signs_nothing = facts(|params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        });
        assert_eq!((signs_nothing.path_len, signs_nothing.may_sign), (None, false));
    }

    #[test]
    fn any_part_of_a_certificate_is_read_without_a_panic() {
        let params = CertificateParams::new(vec!["jarvis".to_owned()]).unwrap();
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        for at in 0..der.len() {
            assert_eq!(Facts::of(&der[..at]), None, "{at}");
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = der.clone();
                changed[at] = byte;
                Facts::of(&changed);
            }
        }
    }
}
