//! A service with a table of notes; `service check` serves and asks itself.
use anyhow::{Context, Result, ensure};
use axum::{Json, Router, extract::State, routing::get};
use clap::Parser;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "127.0.0.1:0")]
    address: String,
    #[arg(long, default_value = ":memory:")]
    database: String,
}

#[derive(Serialize, Deserialize)]
struct Note {
    text: String,
    digest: String,
}

type Base = Arc<Mutex<rusqlite::Connection>>;

async fn notes(State(base): State<Base>) -> Json<Vec<Note>> {
    let base = base.lock().expect("no panic before");
    let mut statement = base.prepare("SELECT text FROM notes ORDER BY id").expect("a table");
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).expect("rows");
    let note = |text: String| Note { digest: format!("{:x}", Sha256::digest(&text)), text };
    Json(rows.map(|text| note(text.expect("text"))).collect())
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt::init();
    let options = Options::parse();
    let base = rusqlite::Connection::open(&options.database)?;
    base.execute_batch("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text); INSERT INTO notes (text) VALUES ('one'), ('two')")?;
    let service = Router::new().route("/notes", get(notes)).with_state(Arc::new(Mutex::new(base)));
    let listener = tokio::net::TcpListener::bind(&options.address).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, service).await });
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"GET /notes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    let body = reply.split_once("\r\n\r\n").context("a body")?.1;
    let notes: Vec<Note> = serde_json::from_str(body)?;
    ensure!(regex::Regex::new("^[0-9a-f]{64}$")?.is_match(&notes[0].digest), "no digest");
    println!("{} notes", notes.len());
    Ok(())
}
