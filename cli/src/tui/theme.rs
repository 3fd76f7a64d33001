//! How things look: a few colours with a meaning each, or none where NO_COLOR asks for that.

use klp_proto::view::cell::Standing;
use ratatui::style::{Color, Modifier, Style};

#[derive(Clone, Copy, Debug)]
pub struct Theme {
    pub colours: bool,
}

/// A standing in one character.
pub fn mark(standing: Standing) -> char {
    match standing {
        Standing::Failed => '✗',
        Standing::Cancelled => '⊘',
        Standing::Running => '▶',
        Standing::Waiting => '·',
        Standing::Succeeded => '✓',
    }
}

impl Theme {
    pub fn of_environment() -> Self {
        Self {
            colours: crate::output::wants_colours(),
        }
    }

    fn coloured(self, colour: Color) -> Style {
        match self.colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    pub fn standing(self, standing: Standing) -> Style {
        match standing {
            Standing::Failed => self.bad(),
            Standing::Cancelled => self.warning(),
            Standing::Running => self.coloured(Color::Cyan),
            Standing::Waiting => self.dim(),
            Standing::Succeeded => self.good(),
        }
    }

    pub fn good(self) -> Style {
        self.coloured(Color::Green)
    }

    pub fn bad(self) -> Style {
        self.coloured(Color::Red)
    }

    pub fn warning(self) -> Style {
        self.coloured(Color::Yellow)
    }

    pub fn busy(self) -> Style {
        self.coloured(Color::Cyan)
    }

    pub fn dim(self) -> Style {
        self.coloured(Color::DarkGray)
    }

    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub fn heading(self) -> Style {
        self.coloured(Color::Blue).add_modifier(Modifier::BOLD)
    }

    /// Of what is selected, over its own style.
    pub fn selected(self) -> Modifier {
        Modifier::REVERSED
    }
}
