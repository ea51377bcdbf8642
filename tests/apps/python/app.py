"""A Flask application for gunicorn: a small page, a page that computes, a database and an upload."""
import hashlib
import sqlite3

from flask import Flask, request

app = Flask(__name__)
DATABASE = "/data/app.db"


def database():
    db = sqlite3.connect(DATABASE, timeout=30)
    db.execute("create table if not exists notes (id integer primary key, text text)")
    return db


@app.get("/")
def index():
    return "hello\n"


@app.get("/work")
def work():
    return hashlib.sha256(b"x" * 100_000).hexdigest()


@app.post("/notes")
def add():
    with database() as db:
        return str(db.execute("insert into notes (text) values (?)", (request.data.decode(),)).lastrowid)


@app.get("/notes/count")
def count():
    return str(database().execute("select count(*) from notes").fetchone()[0])


@app.post("/digest")
def digest():
    return hashlib.sha256(request.get_data()).hexdigest()
