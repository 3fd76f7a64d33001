//! `klp-farm token`: who may use the farm, and as what.

use clap::{Args, Subcommand};
use klp_proto::v1;
use klp_proto::view::access;

use crate::client::Client;
use crate::output::{self, Failed, Mode};

const DAY_MS: i64 = 86_400_000;

#[derive(Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token; it is printed this once, and kept nowhere
    Create(CreateArgs),
    /// List all tokens, without their secrets
    List,
    /// Put a token out at once
    Revoke(RevokeArgs),
}

#[derive(Args)]
#[command(after_help = "\
Roles: viewer looks; submitter submits livepatches, and cancels, retries and pauses them; operator drains workers and says what
goes first; admin says who may do what. Each may do what the ones before it may.

Example:
  klp-farm token create jane --role submitter --days 90 > ~jane/.config/klp-farm/token")]
pub struct CreateArgs {
    /// Whose it is or what for, as in jane or ci@build
    name: String,
    /// viewer, submitter, operator or admin
    #[arg(long)]
    role: String,
    /// How long it is valid [default: until it is revoked]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
}

#[derive(Args)]
pub struct RevokeArgs {
    /// Its id, as `klp-farm token list` shows it: the second part of the token itself
    id: String,
}

pub async fn run(args: TokenArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    match args.command {
        TokenCommand::Create(args) => create(args, client, mode).await,
        TokenCommand::List => list(client, mode).await,
        TokenCommand::Revoke(args) => revoke(args, client, mode).await,
    }
}

async fn create(args: CreateArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let request = v1::CreateTokenRequest {
        name: args.name,
        role: args.role,
        expires_ms: args.days.map_or(0, |days| output::now_ms() + i64::from(days) * DAY_MS),
    };
    let made = client.access().create_token(request).await;
    let made = made.map_err(|status| client.explain(status))?.into_inner();
    let token = made.token.unwrap_or_default();
    match mode {
        Mode::Json => output::json(&serde_json::json!({
            "token": made.secret,
            "about": access::Token::from(token),
        })),
        Mode::Table => {
            eprintln!(
                "{}, {}: shown this once; revoke it with `klp-farm token revoke {}`",
                token.name, token.role, token.id
            );
            output::print(&made.secret)
        }
    }
}

async fn list(client: &Client, mode: Mode) -> Result<(), Failed> {
    let listed = client.access().list_tokens(v1::ListTokensRequest {}).await;
    let listed = listed.map_err(|status| client.explain(status))?.into_inner().tokens;
    let tokens: Vec<access::Token> = listed.into_iter().map(Into::into).collect();
    if mode == Mode::Json {
        return output::json(&tokens);
    }
    let now = output::now_ms();
    let mut table = output::table(&["ID", "NAME", "ROLE", "MADE", "BY", "STATE"]);
    for token in tokens {
        let state = access::standing(token.expires_ms, token.revoked_ms, now);
        let made = output::ago(token.created_ms, now);
        table.add_row([token.id, token.name, token.role, made, token.created_by, state]);
    }
    output::print(&table.trim_fmt())
}

async fn revoke(args: RevokeArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let revoked = client
        .access()
        .revoke_token(v1::RevokeTokenRequest { id: args.id })
        .await;
    let revoked = revoked.map_err(|status| client.explain(status))?.into_inner().token;
    let token = access::Token::from(revoked.unwrap_or_default());
    match mode {
        Mode::Json => output::json(&token),
        Mode::Table => output::print(&format!("{} of {}: revoked", token.id, token.name)),
    }
}
