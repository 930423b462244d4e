//! Waits until a URL is answered with 200: how a command finds out that what it started works.
//!
//! It asks like a client would, so what it sees is what a client sees.

use std::time::{Duration, Instant};

use ureq::Agent;

/// Between two questions: short enough that nobody notices, long enough to leave the processor alone.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// After how long the log says what is being waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `url`, asked for with the header `host` if one is given, is answered with 200.
pub(crate) async fn until_ok(url: String, host: Option<&'static str>) {
    let agent = agent();
    let start = Instant::now();
    let mut patient = true;
    loop {
        let (asking, asked) = (agent.clone(), url.clone());
        // A task that was cancelled or panicked is no answer either.
        if tokio::task::spawn_blocking(move || is_ok(&asking, &asked, host)).await.unwrap_or(false) {
            return;
        }
        if patient && start.elapsed() > PATIENCE {
            patient = false;
            tracing::warn!(%url, "still waiting for the answer 200");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn agent() -> Agent {
    // The environment's proxy is for the way out, not for this process asking itself.
    Agent::config_builder().proxy(None).timeout_global(Some(ANSWER_TIMEOUT)).max_redirects(0).build().into()
}

fn is_ok(agent: &Agent, url: &str, host: Option<&str>) -> bool {
    let request = agent.get(url);
    let request = match host {
        Some(host) => request.header("host", host),
        None => request,
    };
    request.call().is_ok_and(|response| response.status() == 200)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn waiting_ends_with_the_first_200_and_not_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/status/ready", listener.local_addr().unwrap());
        let asked = std::thread::spawn(move || {
            let mut questions = Vec::new();
            for status in ["503 Service Unavailable", "404 Not Found", "200 OK"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut question = [0; 4096];
                let length = stream.read(&mut question).unwrap();
                questions.push(String::from_utf8_lossy(&question[..length]).into_owned());
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .unwrap();
            }
            questions
        });
        until_ok(url, Some("petstore.example.com")).await;
        let questions = asked.join().unwrap();
        assert_eq!(questions.len(), 3);
        assert!(questions[0].to_lowercase().contains("host: petstore.example.com\r\n"), "{}", questions[0]);
    }
}
