//! The requests that are asked, and their order.

use std::fmt::Write as _;
use std::io::Write as _;

/// The deployment key of all requests.
const KEY: &str = "server-0123456789abcdef0123456789abcdef";
/// How many places the order by popularity has before it begins again.
const ORDER_LENGTH: usize = 1 << 17;
/// Up to how many users their requests are written out before the run.
const PREPARED_MAX: usize = 1_000_000;

/// What a request looks like.
#[derive(Clone, Copy, PartialEq)]
pub enum Shape {
    /// GET /v1/vardata, user and device in the query.
    V1,
    /// GET /sdk/v2/vardata, a user header of 200 bytes.
    Sdk,
    /// The same with a user header of 4 KiB.
    Sdk4k,
    /// POST /sdk/v2/vardata, the user of `Sdk` in the body.
    Post,
    /// As `Sdk`, each request with white space of its own in the user: another text, the same question.
    Spelled,
    /// As `Sdk`, with the user of the engine's bench: everything its flags look at.
    Person,
    /// GET /sdk/v2/flags.
    Flags,
}

impl Shape {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "v1" => Self::V1,
            "sdk" => Self::Sdk,
            "sdk4k" => Self::Sdk4k,
            "post" => Self::Post,
            "spelled" => Self::Spelled,
            "person" => Self::Person,
            "flags" => Self::Flags,
            _ => return None,
        })
    }

    /// Writes the request of a user; `number` counts requests.
    fn write(self, user: usize, number: usize, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::V1 => head(
                out,
                &format!(
                    "GET /v1/vardata?user_id=user-{user:06}&device_id={} ",
                    device(user)
                ),
            ),
            Self::Flags => head(out, "GET /sdk/v2/flags?v=0 "),
            Self::Post => {
                let body = small(user, 0);
                head(out, "POST /sdk/v2/vardata?v=0 ");
                let length = body.len();
                let _ = write!(
                    out,
                    "content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                return;
            }
            Self::Sdk | Self::Sdk4k | Self::Spelled | Self::Person => {
                let text = match self {
                    Self::Sdk4k => large(user),
                    Self::Spelled => small(user, number),
                    Self::Person => person(user),
                    _ => small(user, 0),
                };
                head(out, "GET /sdk/v2/vardata?v=0 ");
                out.extend_from_slice(b"x-amp-exp-user: ");
                base64(text.as_bytes(), out);
                out.extend_from_slice(b"\r\n");
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Whose request comes next.
#[derive(Clone, Copy, PartialEq)]
pub enum Order {
    /// By popularity: the user of rank r has 1/r of the first one's share.
    Zipf,
    /// All alike, at random.
    Uniform,
    /// One after the other, each once.
    Each,
}

impl Order {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "zipf" => Self::Zipf,
            "uniform" => Self::Uniform,
            "each" => Self::Each,
            _ => return None,
        })
    }
}

/// The requests of a run, one after the other.
pub struct Questions {
    shape: Shape,
    users: usize,
    /// Users in the order they ask; empty if that is one after the other.
    order: Vec<u32>,
    /// Requests of all users in one text, and where each ends; empty if they are written when asked.
    texts: Vec<u8>,
    ends: Vec<usize>,
    asked: usize,
}

impl Questions {
    /// Requests of users 0 to `users`; `first` is the first of them where each asks once.
    pub fn new(shape: Shape, order: Order, users: usize, first: usize) -> Self {
        let mut questions = Self {
            shape,
            users,
            order: order_of(order, users),
            texts: Vec::new(),
            ends: Vec::new(),
            asked: first,
        };
        if order != Order::Each && users <= PREPARED_MAX && shape != Shape::Spelled {
            let mut text = Vec::new();
            for user in 0..users {
                shape.write(user, 0, &mut text);
                questions.texts.extend_from_slice(&text);
                questions.ends.push(questions.texts.len());
            }
        }
        questions
    }

    /// Writes the next request to `out`.
    pub fn next(&mut self, out: &mut Vec<u8>) {
        let number = self.asked;
        self.asked += 1;
        let user = match self.order.get(number % ORDER_LENGTH) {
            Some(&user) => user as usize,
            None => number,
        };
        if self.shape == Shape::Spelled {
            return self.shape.write(user % self.users, number, out);
        }
        let Some(&end) = self.ends.get(user) else {
            return self.shape.write(user, number, out);
        };
        let start = if user == 0 { 0 } else { self.ends[user - 1] };
        out.clear();
        out.extend_from_slice(&self.texts[start..end]);
    }
}

fn order_of(order: Order, users: usize) -> Vec<u32> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut sums = Vec::with_capacity(users);
    let mut sum = 0.0;
    for rank in 1..=users {
        sum += 1.0 / rank as f64;
        sums.push(sum);
    }
    let mut popular = || {
        let at = random.unit() * sum;
        let rank = sums.partition_point(|&sum| sum < at).min(users - 1);
        // Popular users are spread over all of them: 7,919 is a prime.
        (rank * 7_919 % users) as u32
    };
    match order {
        Order::Each => Vec::new(),
        Order::Zipf => (0..ORDER_LENGTH).map(|_| popular()).collect(),
        Order::Uniform => (0..ORDER_LENGTH)
            .map(|_| (random.unit() * users as f64) as u32)
            .collect(),
    }
}

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn head(out: &mut Vec<u8>, start: &str) {
    let _ = write!(
        out,
        "{start}HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Api-Key {KEY}\r\naccept: */*\r\n\
         user-agent: experiment-sdk/1.0\r\n"
    );
}

fn device(user: usize) -> String {
    let number = (user as u32).wrapping_mul(2_654_435_761);
    format!("{number:08x}-6d1f-4c3e-9a55-1b2c3d4e5f60")
}

/// 150 bytes, 200 in base64, plus the white space that the bits of `spelling` put between its tokens.
fn small(user: usize, spelling: usize) -> String {
    let device = device(user);
    let compact = format!(
        r#"{{"user_id":"user-{user:06}","device_id":"{device}","platform":"Web","user_properties":{{"premium":true,"plan":"gold"}}}}"#
    );
    let mut text = String::with_capacity(compact.len() + 32);
    let mut left = spelling;
    for letter in compact.chars() {
        text.push(letter);
        if matches!(letter, ',' | ':' | '{') {
            if left & 1 == 1 {
                text.push(' ');
            }
            left >>= 1;
        }
    }
    // What the tokens have no room for.
    text.extend(std::iter::repeat_n(' ', left & 63));
    text
}

/// 3 KiB, 4 KiB in base64: 40 properties and more.
fn large(user: usize) -> String {
    let mut text = small(user, 0);
    text.truncate(text.len() - 2);
    let mut number = 0;
    while text.len() < 3_000 {
        let _ = write!(
            text,
            r#","property {number:02}":"value {number} of user {user:06}, as long as usual""#
        );
        number += 1;
    }
    text.push_str("}}");
    text
}

/// The user of `tests/vectors/engines/user.json` under another name.
fn person(user: usize) -> String {
    include_str!("../../../vectors/engines/user.json")
        .trim()
        .replacen("user-48213", &format!("user-{user:06}"), 1)
}

fn base64(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in text.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= three.len() { digit } else { b'=' });
        }
    }
}
