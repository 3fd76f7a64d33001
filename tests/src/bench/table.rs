//! The one table that is printed.

use serde::Serialize;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub section: &'static str,
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    /// What else was seen, such as a ratio to a yardstick.
    pub beside: String,
}

#[derive(Debug, Default, Serialize)]
pub struct Table {
    pub rows: Vec<Row>,
}

impl Table {
    pub fn add(&mut self, section: &'static str, what: impl Into<String>, value: f64, unit: &'static str) -> &mut Row {
        let row = Row {
            section,
            what: what.into(),
            value,
            unit,
            beside: String::new(),
        };
        eprintln!("{section}: {}: {} {unit}", row.what, number(value));
        self.rows.push(row);
        let last = self.rows.len() - 1;
        &mut self.rows[last]
    }

    /// What was measured before under this name.
    pub fn value(&self, what: &str) -> Option<f64> {
        Some(self.rows.iter().find(|row| row.what == what)?.value)
    }

    /// How `value` compares with what was measured before under a name.
    pub fn ratio(&self, value: f64, what: &str) -> String {
        match self.value(what) {
            Some(other) if other > 0.0 => format!("{:.2} x {what}", value / other),
            _ => String::new(),
        }
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from("| | measured | | beside |\n|---|---:|---|---|\n");
        let mut section = "";
        for row in &self.rows {
            if row.section != section {
                section = row.section;
                text += &format!("| **{section}** | | | |\n");
            }
            let Row {
                what,
                value,
                unit,
                beside,
                ..
            } = row;
            text += &format!("| {what} | {} | {unit} | {beside} |\n", number(*value));
        }
        text
    }
}

fn number(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
