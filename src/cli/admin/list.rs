//! `tollgate admin list`: the clients, for people or as lines of `export`.

use std::io::{self, Write as _};

use clap::Args;

use super::connect::Connection;
use super::line::Line;
use super::{ServerArgs, show};
use crate::cli::exit::Outcome;

/// `tollgate admin list`.
#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Only this domain
    domain: Option<String>,
}

/// Lists clients page by page.
pub(super) async fn run(server: &ServerArgs, args: ListArgs) -> Outcome {
    let domain = args.domain.unwrap_or_default();
    let connection = Connection::open(server).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let (mut token, mut count) = (String::new(), 0_u64);
    loop {
        let page = connection.page(&domain, token).await?;
        count += page.clients.len() as u64;
        for client in page.clients {
            if server.json {
                writeln!(out, "{}", serde_json::to_string(&Line::Client(client.into()))?)?;
            } else {
                let descriptor = show::descriptor(&client.entries);
                writeln!(out, "{} {descriptor}: {}", client.domain, show::client(&client))?;
            }
        }
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    if !server.json {
        writeln!(out, "{count} client{}", if count == 1 { "" } else { "s" })?;
    }
    out.flush()?;
    Ok(())
}
