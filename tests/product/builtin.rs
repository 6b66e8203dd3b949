//! The builtin server over plain HTTP: real clients, limits by address, and a stop that no client notices.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};

use crate::harness::{Answer, Served, now};

fn start(more: &[&str]) -> Served {
    Served::start(&[&["--http-server", "builtin"], more].concat())
}

fn post(host: &str) -> Vec<u8> {
    let head = format!("POST /api/perf/{host}/{} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", now());
    (head + "{\"cpu\":1}").into_bytes()
}

/// What a command prints before it ends well.
fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs curl"]
fn curl_is_answered_by_each_version_it_offers() {
    let receiver = start(&[]);
    let (submit, list) = (receiver.url(&format!("/api/perf/curl/{}", now())), receiver.url("/api/hosts"));
    for version in ["--http1.0", "--http1.1", "--http2"] {
        let write = ["-sS", "-m", "20", version, "-o", "/dev/null", "-o", "/dev/null", "-w", "%{http_code} "];
        assert_eq!(
            printed("curl", &[&write[..], &["-d", "{\"cpu\":1}", &submit, &submit]].concat()),
            "200 200 ",
            "{version}"
        );
        assert_eq!(printed("curl", &[&write[..], &[&list, &list]].concat()), "200 200 ", "{version}");
    }
    assert_eq!(receiver.samples("curl", "cpu"), 6);
}

#[test]
#[ignore = "needs python3"]
fn python_keeps_its_connection_past_a_refusal() {
    let receiver = start(&[]);
    let script = "import http.client, sys, time\n\
        c = http.client.HTTPConnection(sys.argv[1])\n\
        for target in ('/nowhere', f'/api/perf/python/{int(time.time())}'):\n    \
            c.request('POST', target, '{\"cpu\":1}' + ' ' * 100000); a = c.getresponse(); a.read(); print(a.status, a.will_close)\n";
    let said = printed("/usr/bin/python3", &["-c", script, &receiver.address.to_string()]);
    assert_eq!(said, "404 False\n200 False\n");
}

/// Each goes on over the connection that a refusal has come by.
#[test]
#[ignore = "needs wget, python3-requests and python3-httpx"]
fn clients_that_people_use_are_answered() {
    let receiver = start(&[]);
    let address = receiver.address.to_string();
    let list = receiver.url("/api/hosts");
    assert!(printed("wget", &["-q", "-O", "-", &list]).starts_with("{\"hosts\":"));
    for client in ["requests.Session()", "httpx.Client()"] {
        let script = format!(
            "import sys, time, {}\n\
             with {client} as client:\n    \
                 base = 'http://' + sys.argv[1]\n    \
                 print(client.get(base + '/nowhere').status_code)\n    \
                 for _ in range(2):\n        \
                     print(client.post(f'{{base}}/api/perf/python/{{int(time.time())}}', json={{'cpu': 1}}).json()['stored'])\n    \
                 print(client.post(base + '/api/perf/python/1', content=b'x' * 70000).status_code)\n    \
                 print(len(client.get(base + '/api/hosts').json()['hosts']))\n",
            client.split('.').next().unwrap()
        );
        let script = if client.starts_with("requests") { script.replace("content=", "data=") } else { script };
        assert_eq!(printed("/usr/bin/python3", &["-c", &script, &address]), "404\n1\n1\n400\n1\n", "{client}");
    }
}

/// A second reader of the answers, which takes nothing that HTTP/1.1 does not allow.
#[test]
#[ignore = "needs python3-h11"]
fn h11_reads_each_answer_and_the_one_behind_it() {
    let script = "import h11, socket, sys, time\n\
        def ask(method, target, body, *more):\n    \
            headers = [('Host', 'x'), ('Content-Length', str(len(body))), *more]\n    \
            sock.sendall(conn.send(h11.Request(method=method, target=target, headers=headers)))\n    \
            sock.sendall(conn.send(h11.Data(data=body)) + conn.send(h11.EndOfMessage()))\n    \
            length = 0\n    \
            while True:\n        \
                event = conn.next_event()\n        \
                if event is h11.NEED_DATA: conn.receive_data(sock.recv(65536))\n        \
                elif isinstance(event, h11.Response): status, declared = event.status_code, dict(event.headers)\n        \
                elif isinstance(event, h11.Data): length += len(event.data)\n        \
                elif isinstance(event, h11.EndOfMessage): break\n    \
            assert method == 'HEAD' or status in (204, 304) or length == int(declared[b'content-length'])\n    \
            conn.start_next_cycle()\n    \
            return status\n\
        conn, now = h11.Connection(h11.CLIENT), int(time.time())\n\
        with socket.create_connection(sys.argv[1].split(':')) as sock:\n    \
            print([ask(*each) for each in (\n        \
                ('POST', f'/api/perf/h11/{now}', b'{\"cpu\":1}'), ('GET', '/nowhere', b''), ('HEAD', '/api/perf/h11', b''),\n        \
                ('POST', '/write?precision=s', b'perf,host=h11 cpu=2 %d\\n' % now), ('POST', '/api/perf/h11/x', b'{}' * 999),\n        \
                ('PUT', '/api/hosts', b''), ('GET', '/', b''), ('OPTIONS', '/ping', b''), ('GET', '/metrics', b''),\n        \
                ('GET', '/api/hosts', b'', ('Accept-Encoding', 'gzip')), ('DELETE', '/api/perf/h11', b''))])\n";
    for server in ["tiny_http", "builtin"] {
        let receiver = Served::start(&["--http-server", server]);
        let statuses = printed("/usr/bin/python3", &["-c", script, &receiver.address.to_string()]);
        assert_eq!(statuses, "[200, 404, 200, 204, 400, 405, 200, 405, 200, 200, 200]\n", "{server}");
    }
}

#[test]
fn one_address_gets_its_share_of_the_connections() {
    let receiver = start(&["--max-connections", "8"]);
    let mut held = [receiver.connect(), receiver.connect()];
    for stream in &mut held {
        stream.write_all(&post("held")).unwrap();
        assert_eq!(Answer::read(stream).status, 200);
    }
    // It is closed unanswered, by a reset where the request has come.
    let mut rejected = receiver.connect();
    let _ = rejected.write_all(&post("rejected"));
    assert!(matches!(rejected.read(&mut [0; 1]), Ok(0) | Err(_)));
    held[0].write_all(&post("held")).unwrap();
    assert_eq!(Answer::read(&mut held[0]).status, 200);
    let proxied = start(&["--max-connections", "8", "--trust-proxy", "127.0.0.1"]);
    let streams: Vec<_> = (0..8).map(|_| proxied.connect()).collect();
    for mut stream in streams {
        stream.write_all(&post("proxied")).unwrap();
        assert_eq!(Answer::read(&mut stream).status, 200);
    }
}

#[test]
fn a_stop_answers_kept_connections_until_it_has_told_them() {
    let receiver = start(&[]);
    let mut streams: Vec<_> = (0..8).map(|_| receiver.connect()).collect();
    let ask = |stream: &mut std::net::TcpStream| {
        stream.write_all(&post("h")).unwrap();
        let answer = Answer::read(stream);
        assert_eq!(answer.status, 200);
        answer.header("connection") == Some("close")
    };
    assert!(streams.iter_mut().all(|stream| !ask(stream)));
    let pid = receiver.process.pid();
    let posting = thread::spawn(move || {
        let mut posts = streams.len();
        while !streams.is_empty() {
            posts += streams.len();
            streams.retain_mut(|stream| !ask(stream));
        }
        posts
    });
    kill(pid, Signal::SIGTERM).unwrap();
    let posts = posting.join().unwrap();
    let (status, log) = receiver.process.end();
    assert!(status.success(), "{log:?}");
    assert_eq!(log.last().unwrap(), &format!("INFO: Receiver stopped: {posts} values stored"));
}
