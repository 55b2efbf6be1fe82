//! What a queue is made of.

use super::QueueError;

/// Whether the NIC may use our memory itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMode {
    /// Zero-copy if the driver has it, else copies. With a program in generic mode take
    /// [`Copy`](Self::Copy): zero-copy would receive nothing then.
    #[default]
    Auto,
    /// The kernel copies each frame.
    Copy,
    /// Zero-copy, or not at all.
    ZeroCopy,
}

/// Whether the memory is to be in huge pages of 2 MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// No.
    #[default]
    Off,
    /// If the system has some to spare.
    Try,
    /// Yes, or not at all.
    Require,
}

/// What [`Queue::open`](super::Queue::open) needs to know.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// The network interface, in the calling thread's network namespace.
    pub interface: String,
    /// The NIC queue, from 0.
    pub queue: u32,
    /// Frames for receiving: those of the NIC, plus as many as may arrive while the worker is
    /// busy. A power of two.
    pub rx_frames: u32,
    /// Frames for sending. A power of two, at least [`BATCH`](super::BATCH).
    pub tx_frames: u32,
    /// Bytes of a frame, of which the kernel keeps [`HEADROOM`](Self::HEADROOM): 2048 or 4096.
    pub frame_size: u32,
    /// Whether the NIC may use our memory itself.
    pub copy_mode: CopyMode,
    /// Whether the memory is to be in huge pages.
    pub huge_pages: HugePages,
    /// Whether the kernel tells when it wants to be woken, which saves needless wake-ups.
    pub need_wakeup: bool,
}

impl QueueConfig {
    /// Bytes that the kernel keeps at the start of each frame (`XDP_PACKET_HEADROOM`).
    pub const HEADROOM: u32 = 256;

    /// Largest number of frames for each direction.
    pub const MAX_FRAMES: u32 = 1 << 20;

    /// Everything else at its default: 2048 frames of 2048 bytes for each direction.
    #[must_use]
    pub fn new(interface: impl Into<String>, queue: u32) -> Self {
        Self {
            interface: interface.into(),
            queue,
            rx_frames: 2048,
            tx_frames: 2048,
            frame_size: 2048,
            copy_mode: CopyMode::default(),
            huge_pages: HugePages::default(),
            need_wakeup: true,
        }
    }

    /// Bytes of memory that the queue takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (u64::from(self.rx_frames) + u64::from(self.tx_frames)) * u64::from(self.frame_size)
    }

    /// # Errors
    /// [`QueueError::InvalidConfig`] says which of the limits above is not kept.
    pub(super) fn check(&self) -> Result<(), QueueError> {
        let frames = |name: &'static str, count: u32| {
            if count.is_power_of_two() && (super::BATCH as u32..=Self::MAX_FRAMES).contains(&count)
            {
                Ok(())
            } else {
                Err(QueueError::InvalidConfig {
                    setting: name,
                    must: "be a power of two from 64 to 1048576",
                })
            }
        };
        frames("rx_frames", self.rx_frames)?;
        frames("tx_frames", self.tx_frames)?;
        if !matches!(self.frame_size, 2048 | 4096) {
            return Err(QueueError::InvalidConfig {
                setting: "frame_size",
                must: "be 2048 or 4096",
            });
        }
        if self.interface.contains('\0') {
            return Err(QueueError::InvalidConfig {
                setting: "interface",
                must: "not contain a zero byte",
            });
        }
        if self.huge_pages == HugePages::Require && !self.fits_huge_pages() {
            return Err(QueueError::InvalidConfig {
                setting: "huge_pages",
                must: "be off unless all frames together fill whole pages of 2 MiB",
            });
        }
        Ok(())
    }

    pub(super) fn fits_huge_pages(&self) -> bool {
        self.bytes().is_multiple_of(2 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_in_order_and_fits_huge_pages() {
        let config = QueueConfig::new("eth0", 0);
        assert!(config.check().is_ok());
        assert!(config.fits_huge_pages());
        assert_eq!(config.bytes(), 8 << 20);
    }

    #[test]
    fn each_limit_is_named_in_its_error() {
        let good = QueueConfig::new("eth0", 0);
        let bad = [
            ("rx_frames", QueueConfig { rx_frames: 0, ..good.clone() }),
            ("rx_frames", QueueConfig { rx_frames: 3000, ..good.clone() }),
            ("tx_frames", QueueConfig { tx_frames: 32, ..good.clone() }),
            ("tx_frames", QueueConfig { tx_frames: 1 << 21, ..good.clone() }),
            ("frame_size", QueueConfig { frame_size: 1500, ..good.clone() }),
            ("interface", QueueConfig { interface: "a\0".into(), ..good.clone() }),
            (
                "huge_pages",
                QueueConfig {
                    huge_pages: HugePages::Require,
                    rx_frames: 64,
                    tx_frames: 64,
                    ..good
                },
            ),
        ];
        for (setting, config) in bad {
            let error = config.check().expect_err(setting);
            assert!(error.to_string().contains(setting), "{error}");
        }
    }
}
