//! Generated requests, cut anywhere: both HTTP servers answer them alike. `LIZM_TEST_GENERATED` says how many.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;

use crate::harness::{connect, now};
use crate::http::{on_each_server, post};

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    /// One below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    /// A request that either server accepts as one. Its answer does not depend on the second in which it is given.
    fn request(&mut self, at: u64) -> Vec<u8> {
        let connection = ["", "Connection: keep-alive\r\n", "connection:keep-alive\r\nX-Empty:\r\n"][self.below(3)];
        let padding = " ".repeat([0, 100, 1015, 1024, 5000, 60_000][self.below(6)]);
        let json = ["{\"cpu\":1}", "{}", "{\"cpu\":no}", "[1]", "{\"a\":1,\"b\":\"2.5\"}"][self.below(5)];
        let sample = format!("{json}{padding}");
        let sized = format!("{connection}Content-Length: {}\r\n", sample.len());
        let expect = ["", "Expect: 100-continue\r\n"][self.below(2)];
        let path = format!("/api/perf/h{}/{at}", self.below(5));
        match self.below(9) {
            0 => post(&path, &format!("{expect}{sized}"), &sample),
            1 => post(&path, &format!("{sized}Idempotency-Key: a-{}\r\n", self.below(20)), &sample),
            2 => post("/nowhere", &sized, &sample),
            3 => post("/api/perf/h/now", &sized, &sample),
            4 => post(&path, connection, ""),
            5 => {
                let lines = format!("perf,host=l cpu={} {at}\n", self.below(9)).repeat(1 + self.below(200));
                let chunk_bytes = 1 + self.below(lines.len());
                let chunk = |part: &[u8]| format!("{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part));
                let chunks: String = lines.as_bytes().chunks(chunk_bytes.max(64)).map(chunk).collect();
                post("/write", &format!("{connection}Transfer-Encoding: chunked\r\n"), &(chunks + "0\r\n\r\n"))
            }
            _ => {
                let target = ["/health", "/nothing", "/api/perf/a%2fb", "/api/hosts?limit=0", "/ping"][self.below(5)];
                let method = ["GET", "GET", "HEAD", "DELETE", "brew"][self.below(5)];
                format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{connection}\r\n").into_bytes()
            }
        }
    }
}

/// What a server answers to bytes that come in pieces: status lines and bodies, without interim answers.
fn answered(server: SocketAddr, bytes: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut stream = connect(server);
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut all = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut from = 0;
            for to in cuts.iter().copied().chain([bytes.len()]) {
                writer.write_all(&bytes[from..to]).unwrap();
                from = to;
            }
        });
        stream.read_to_end(&mut all).unwrap();
    });
    let text = String::from_utf8(all).unwrap();
    // A body may end where the next answer begins.
    let text = text.replace("HTTP/1.1 ", "\r\nHTTP/1.1 ");
    let is_head_field = |line: &&str| line.split_once(": ").is_some_and(|(name, _)| !name.contains(['"', '{']));
    text.split("\r\n")
        .filter(|line| !line.is_empty() && !is_head_field(line) && !line.contains(" 100 "))
        .map(str::to_owned)
        .collect()
}

/// How many requests are generated, unless `LIZM_TEST_GENERATED` says how many.
const GENERATED: usize = 2000;

#[test]
fn both_servers_answer_generated_requests_alike_wherever_they_are_cut() {
    let generated = std::env::var("LIZM_TEST_GENERATED").map_or(GENERATED, |number| number.parse().unwrap());
    let receivers = on_each_server();
    let (mut numbers, mut requests, at) = (Numbers(1), 0, now());
    while requests < generated {
        let count = 1 + numbers.below(6);
        let mut bytes: Vec<u8> = (0..count).flat_map(|_| numbers.request(at)).collect();
        bytes.extend(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut cuts: Vec<usize> = (0..numbers.below(6)).map(|_| numbers.below(bytes.len())).collect();
        cuts.sort_unstable();
        let [one, other] = [0, 1].map(|at| answered(receivers[at].address, &bytes, &cuts));
        let sent = String::from_utf8_lossy(&bytes).replace("  ", "");
        assert_eq!(one, other, "after {requests} requests, cut at {cuts:?}: {sent}");
        requests += count + 1;
    }
}
