//! PostgreSQL: a stored procedure.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Context as _;
use load::{Client, Dice, Done, System};
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Statement};

use crate::{STOCK, done};

/// Rows with room for a second version on their page, as one would set for a table that is mostly updated. The
/// rows are locked in one order, so that no two transfers wait for each other.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account (id bigint PRIMARY KEY, stock bigint NOT NULL) WITH (fillfactor = 50);
CREATE OR REPLACE FUNCTION transfer(source bigint, target bigint, amount bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    source_stock bigint;
    target_stock bigint;
BEGIN
    IF source < target THEN
        SELECT stock INTO STRICT source_stock FROM account WHERE id = source FOR UPDATE;
        SELECT stock INTO STRICT target_stock FROM account WHERE id = target FOR UPDATE;
    ELSE
        SELECT stock INTO STRICT target_stock FROM account WHERE id = target FOR UPDATE;
        SELECT stock INTO STRICT source_stock FROM account WHERE id = source FOR UPDATE;
    END IF;
    IF source_stock < amount THEN
        RETURN -1;
    END IF;
    UPDATE account SET stock = source_stock - amount WHERE id = source;
    UPDATE account SET stock = target_stock + amount WHERE id = target;
    RETURN source_stock - amount;
END $$;
";

/// A primary.
pub struct PostgreSql {
    primary: String,
    accounts: u64,
    reads: bool,
    /// For the question how often it has synced.
    watching: tokio_postgres::Client,
}

impl PostgreSql {
    /// Connects to it.
    pub async fn connect(primary: String, accounts: u64, reads: bool) -> anyhow::Result<Self> {
        let watching = connect(&primary).await?;
        Ok(Self { primary, accounts, reads, watching })
    }
}

async fn connect(at: &str) -> anyhow::Result<tokio_postgres::Client> {
    let (host, port) = at.rsplit_once(':').context("host:port")?;
    let parameters = format!("host={host} port={port} user=postgres dbname=postgres");
    let (client, connection) =
        tokio_postgres::connect(&parameters, NoTls).await.with_context(|| format!("PostgreSQL at {at}"))?;
    // Its end is seen by the client.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(client)
}

impl System for PostgreSql {
    type Client = PostgreSqlClient;

    async fn client(&self, _: u32) -> anyhow::Result<PostgreSqlClient> {
        let session = connect(&self.primary).await?;
        let asked = if self.reads { "SELECT stock FROM account WHERE id = $1" } else { "SELECT transfer($1, $2, 1)" };
        let statement = session.prepare(asked).await.context("PostgreSQL")?;
        Ok(PostgreSqlClient { session, statement, accounts: self.accounts, reads: self.reads })
    }

    async fn syncs(&self) -> BTreeMap<String, u64> {
        // A standby counts none (version 15).
        let asked = self.watching.query_one("SELECT wal_sync FROM pg_stat_wal", &[]).await;
        let count = asked.ok().and_then(|row| u64::try_from(row.get::<_, i64>(0)).ok());
        count.map(|count| (self.primary.clone(), count)).into_iter().collect()
    }
}

/// One client, with a session of its own.
pub struct PostgreSqlClient {
    session: tokio_postgres::Client,
    statement: Statement,
    accounts: u64,
    reads: bool,
}

impl Client for PostgreSqlClient {
    async fn call(&mut self, _: u64, dice: &mut Dice) -> Done {
        let accounts = if self.reads {
            vec![dice.below(self.accounts).cast_signed()]
        } else {
            let (from, to) = dice.pair(self.accounts);
            vec![from.cast_signed(), to.cast_signed()]
        };
        let parameters: Vec<&(dyn ToSql + Sync)> = accounts.iter().map(|account| account as _).collect();
        let error = match self.session.query_one(&self.statement, &parameters).await {
            Ok(row) if row.get::<_, i64>(0) >= 0 => None,
            Ok(_) => Some("insufficient_stock".to_owned()),
            Err(error) => {
                Some(error.code().map_or("connection_lost".to_owned(), |code| format!("sql_{}", code.code())))
            }
        };
        done(error, 0).await
    }
}

/// Makes accounts.
pub async fn stock(host: &str, numbers: Range<u64>) -> anyhow::Result<()> {
    let session = connect(host).await?;
    session.batch_execute(SCHEMA).await.context("PostgreSQL: the schema")?;
    let (first, last) = (numbers.start, numbers.end.saturating_sub(1));
    let insert =
        format!("INSERT INTO account SELECT id, {STOCK} FROM generate_series({first}, {last}) AS id; ANALYZE account");
    session.batch_execute(&insert).await.context("PostgreSQL: accounts")
}
