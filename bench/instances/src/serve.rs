//! The sockets of all instances in one loop: HTTP/1.1 with kept connections, one request at a time on each.
//! Deadlines come from a heap and the kernel's nanosecond timeouts, so that 10 ms are 10 ms.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::chance::{Chance, Service};
use crate::instance::{Client, Instance, Job, Log, Mode};

const LISTENER: u64 = 1 << 32;
const COMMANDS: u64 = 1 << 33;

/// Random pauses of each instance: length and mean distance, nanoseconds.
pub type Pauses = Option<(u64, f64)>;

struct Connection {
    fd: OwnedFd,
    instance: usize,
    read: Vec<u8>,
    write: Vec<u8>,
    busy: bool,
}

enum Due {
    Job(usize, Job),
    Pause(usize),
}

pub struct Server {
    began: Instant,
    epoll: OwnedFd,
    ports: Vec<u16>,
    listeners: Vec<Option<TcpListener>>,
    pub instances: Vec<Instance>,
    connections: Vec<(u64, Option<Connection>)>,
    free: Vec<usize>,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    dues: std::collections::HashMap<u64, Due>,
    sequence: u64,
    pub service: Service,
    chance: Chance,
    pauses: Pauses,
    body: Vec<u8>,
    commands: Vec<u8>,
}

impl Server {
    /// Listens on all ports of loopback.
    ///
    /// # Errors
    /// A port is taken, or the machine refuses sockets.
    pub fn new(
        ports: Vec<u16>,
        instances: Vec<Instance>,
        service: Service,
        seed: u64,
        pauses: Pauses,
        body: usize,
    ) -> std::io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, rustix::stdio::stdin(), EventData::new_u64(COMMANDS), EventFlags::IN)?;
        let mut server = Self {
            began: Instant::now(),
            epoll,
            listeners: ports.iter().map(|_| None).collect(),
            ports,
            instances,
            connections: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            dues: std::collections::HashMap::new(),
            sequence: 0,
            service,
            chance: Chance(seed),
            pauses,
            body: vec![b'.'; body],
            commands: Vec::new(),
        };
        for index in 0..server.ports.len() {
            server.listen(index)?;
            server.plan_pause(index);
        }
        Ok(server)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn listen(&mut self, index: usize) -> std::io::Result<()> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.ports[index]))?;
        rustix::net::listen(&socket, 4096)?;
        epoll::add(&self.epoll, &socket, EventData::new_u64(LISTENER | index as u64), EventFlags::IN)?;
        self.listeners[index] = Some(socket.into());
        Ok(())
    }

    fn plan_pause(&mut self, index: usize) {
        if let Some((_, distance)) = self.pauses {
            let at = self.now() + (self.chance.exponential() * distance) as u64;
            self.plan(at, Due::Pause(index));
        }
    }

    fn plan(&mut self, at: u64, due: Due) {
        self.sequence += 1;
        self.due.push(Reverse((at, self.sequence)));
        self.dues.insert(self.sequence, due);
    }

    /// Serves until the end of standard input.
    ///
    /// # Errors
    /// The machine refuses to wait for sockets.
    pub fn run(&mut self) -> std::io::Result<()> {
        let mut events = Vec::with_capacity(256);
        loop {
            self.run_due();
            let timeout = self.due.peek().map(|Reverse((at, _))| {
                let span = at.saturating_sub(self.now());
                Timespec { tv_sec: (span / 1_000_000_000) as i64, tv_nsec: (span % 1_000_000_000) as i64 }
            });
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let data = event.data.u64();
                if data == COMMANDS {
                    if !self.command()? {
                        return Ok(());
                    }
                } else if data & LISTENER != 0 {
                    self.accept((data ^ LISTENER) as usize);
                } else {
                    self.look(data as usize);
                }
            }
        }
    }

    fn run_due(&mut self) {
        while let Some(&Reverse((at, sequence))) = self.due.peek() {
            let now = self.now();
            if at > now {
                return;
            }
            self.due.pop();
            match self.dues.remove(&sequence) {
                Some(Due::Job(index, job)) => {
                    let end = self.instances[index].end_of(&job);
                    if end > now {
                        self.plan(end, Due::Job(index, job));
                        continue;
                    }
                    self.instances[index].log.late_ms += (now - end) as f64 / 1e6;
                    self.answer(job.client, job.status);
                    let connections = &self.connections;
                    let next = self.instances[index].finish(now, |client| is_there(connections, client));
                    if let Some((ends, job)) = next {
                        self.plan(ends, Due::Job(index, job));
                    }
                    self.take_request(job.client.0);
                }
                Some(Due::Pause(index)) => {
                    let span = self.pauses.map_or(0, |(span, _)| span);
                    self.instances[index].pause(now, span);
                    self.plan_pause(index);
                }
                None => {}
            }
        }
    }

    fn accept(&mut self, instance: usize) {
        while let Some(Some(listener)) = self.listeners.get(instance) {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(fd) = rustix::net::accept_with(listener, flags) else {
                return;
            };
            let _ = sockopt::set_tcp_nodelay(&fd, true);
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push((0, None));
                self.connections.len() - 1
            });
            if epoll::add(&self.epoll, &fd, EventData::new_u64(index as u64), EventFlags::IN).is_err() {
                self.free.push(index);
                continue;
            }
            let connection = Connection { fd, instance, read: Vec::new(), write: Vec::new(), busy: false };
            self.connections[index].1 = Some(connection);
            self.look(index);
        }
    }

    /// Reads what there is, writes what there is room for.
    fn look(&mut self, index: usize) {
        self.flush(index);
        let Some(connection) = &mut self.connections[index].1 else {
            return;
        };
        let mut buffer = [0u8; 16 * 1024];
        match rustix::net::recv(&connection.fd, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => self.close(index),
            Ok((length, _)) => {
                connection.read.extend_from_slice(&buffer[..length]);
                self.take_request(index);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.close(index),
        }
    }

    /// Begins the next request of a connection, if it is there in full and none is under way.
    fn take_request(&mut self, index: usize) {
        let (used, Some(connection)) = &mut self.connections[index] else {
            return;
        };
        if connection.busy {
            return;
        }
        let Some(length) = request_length(&connection.read) else {
            return;
        };
        connection.read.drain(..length);
        connection.busy = true;
        let (client, instance) = ((index, *used), connection.instance);
        let ms = self.service.draw(&mut self.chance);
        let now = self.now();
        let Some((ends, job)) = self.instances[instance].arrive(now, client, ms) else {
            return;
        };
        self.plan(ends, Due::Job(instance, job));
    }

    fn answer(&mut self, client: Client, status: u16) {
        if !is_there(&self.connections, client) {
            return;
        }
        let Some(connection) = &mut self.connections[client.0].1 else {
            return;
        };
        connection.busy = false;
        let (line, more) = match status {
            200 => ("200 OK", ""),
            500 => ("500 Internal Server Error", ""),
            _ => ("503 Service Unavailable", "retry-after: 1\r\n"),
        };
        let (length, instance) = (self.body.len(), connection.instance);
        let head = format!("HTTP/1.1 {line}\r\ncontent-length: {length}\r\nx-instance: {instance}\r\n{more}\r\n");
        connection.write.extend_from_slice(head.as_bytes());
        connection.write.extend_from_slice(&self.body);
        self.flush(client.0);
    }

    fn flush(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index].1 else {
            return;
        };
        while !connection.write.is_empty() {
            match rustix::net::send(&connection.fd, &connection.write, SendFlags::NOSIGNAL) {
                Ok(length) => drop(connection.write.drain(..length)),
                Err(Errno::AGAIN) => {
                    let interest = EventFlags::IN | EventFlags::OUT;
                    let _ = epoll::modify(&self.epoll, &connection.fd, EventData::new_u64(index as u64), interest);
                    return;
                }
                Err(_) => return self.close(index),
            }
        }
        let _ = (self.body.len() > 4096)
            .then(|| epoll::modify(&self.epoll, &connection.fd, EventData::new_u64(index as u64), EventFlags::IN));
    }

    fn close(&mut self, index: usize) {
        let (used, connection) = &mut self.connections[index];
        if let Some(connection) = connection.take() {
            let _ = epoll::delete(&self.epoll, connection.fd.as_fd());
            *used += 1;
            self.free.push(index);
        }
    }

    /// Does what standard input says; whether there is more to come.
    fn command(&mut self) -> std::io::Result<bool> {
        let mut buffer = [0u8; 4096];
        let length = rustix::io::read(rustix::stdio::stdin(), &mut buffer)?;
        self.commands.extend_from_slice(&buffer[..length]);
        while let Some(end) = self.commands.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.commands.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let words: Vec<&str> = line.split_whitespace().collect();
            println!("{}", self.obey(&words).unwrap_or_else(|| format!(r#"{{"error":"{}"}}"#, line.trim())));
        }
        Ok(length > 0)
    }

    fn obey(&mut self, words: &[&str]) -> Option<String> {
        match *words {
            ["log"] => {
                let logs: Vec<String> = self.instances.iter().map(Instance::to_json).collect();
                return Some(format!("[{}]", logs.join(",")));
            }
            ["reset"] => self.instances.iter_mut().for_each(|instance| instance.log = Log::default()),
            ["speed", index, factor] => {
                self.instances.get_mut(index.parse::<usize>().ok()?)?.speed = factor.parse().ok()?;
            }
            ["pause", index, ms] => {
                let (now, span) = (self.now(), ms.parse::<u64>().ok()? * 1_000_000);
                self.instances.get_mut(index.parse::<usize>().ok()?)?.pause(now, span);
            }
            ["mode", index, mode] => {
                let (index, mode) = (index.parse::<usize>().ok()?, mode_of(mode)?);
                self.instances.get_mut(index)?.mode = mode;
                self.set_refusing(index, mode == Mode::Refuse).ok()?;
            }
            _ => return None,
        }
        Some("{}".into())
    }

    fn set_refusing(&mut self, index: usize, is_refusing: bool) -> std::io::Result<()> {
        if !is_refusing {
            return if self.listeners[index].is_none() { self.listen(index) } else { Ok(()) };
        }
        self.listeners[index] = None;
        for number in 0..self.connections.len() {
            if self.connections[number].1.as_ref().is_some_and(|connection| connection.instance == index) {
                self.close(number);
            }
        }
        Ok(())
    }
}

fn mode_of(word: &str) -> Option<Mode> {
    Some(match word {
        "serve" => Mode::Serve,
        "fail" => Mode::Fail,
        "busy" => Mode::Busy,
        "refuse" => Mode::Refuse,
        _ => return None,
    })
}

fn is_there(connections: &[(u64, Option<Connection>)], (index, used): Client) -> bool {
    connections.get(index).is_some_and(|(now, connection)| *now == used && connection.is_some())
}

/// Bytes of the first request, once head and body are there in full; bodies are of a stated length.
fn request_length(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&read[..head]).ok()?;
    let stated = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = head + stated.unwrap_or(0);
    (read.len() >= length).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_with_its_body_and_not_before() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET";

        assert_eq!(request_length(&request[..request.len() - 4]), None);
        assert_eq!(request_length(request), Some(request.len() - 3));
    }
}
