//! The pcapng file: one interface per worker's queue, a comment per frame, statistics at the end.

use crate::daemon::Failure;
use fourwave_protocol::capture::{CaptureCount, CapturedFrame};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness};
use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) struct File {
    writer: PcapNgWriter<BufWriter<Box<dyn Write>>>,
    began: Duration,
}

impl File {
    /// A file with an interface for each of `queues`.
    pub(super) fn create(
        path: &Path,
        queues: &[String],
        filter: &str,
        snaplen: u32,
    ) -> Result<File, Failure> {
        let out: Box<dyn Write> = match path == Path::new("-") {
            true => Box::new(io::stdout()),
            false => Box::new(std::fs::File::create(path).map_err(Failure::Output)?),
        };
        let program = concat!("fourwave ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(program.into())],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(BufWriter::new(out), section);
        let mut file = File { writer: writer.map_err(failed)?, began: now() };
        for (worker, queue) in queues.iter().enumerate() {
            let mut options = vec![
                InterfaceDescriptionOption::IfName(queue.into()),
                InterfaceDescriptionOption::IfDescription(format!("worker {worker}").into()),
                InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
            ];
            if !filter.is_empty() {
                // 0: the filter is text.
                let filter = [&[0], filter.as_bytes()].concat();
                options.push(InterfaceDescriptionOption::IfFilter(Cow::Owned(filter)));
            }
            let block =
                InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen, options };
            file.writer.write_pcapng_block(block).map_err(failed)?;
        }
        file.flush()?;
        Ok(file)
    }

    pub(super) fn write(&mut self, frame: &CapturedFrame, comment: &str) -> Result<(), Failure> {
        let block = EnhancedPacketBlock {
            interface_id: frame.worker,
            timestamp: Duration::from_nanos(frame.at),
            original_len: frame.length,
            data: Cow::Borrowed(&frame.bytes),
            options: vec![EnhancedPacketOption::Common(CommonOption::Comment(comment.into()))],
        };
        self.writer.write_pcapng_block(block).map_err(failed)?;
        Ok(())
    }

    /// Everything so far is in the file afterwards.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.get_mut().flush().map_err(Failure::Output)
    }

    /// The statistics of every interface: frames that the filter took, and those that are missing.
    pub(super) fn finish(&mut self, counts: &[CaptureCount]) -> Result<(), Failure> {
        for (interface_id, count) in (0..).zip(counts) {
            let block = InterfaceStatisticsBlock {
                interface_id,
                timestamp: now(),
                options: vec![
                    InterfaceStatisticsOption::IsbStartTime(self.began),
                    InterfaceStatisticsOption::IsbEndTime(now()),
                    InterfaceStatisticsOption::IsbIfRecv(count.matched),
                    InterfaceStatisticsOption::IsbIfDrop(count.missed),
                ],
            };
            self.writer.write_pcapng_block(block).map_err(failed)?;
        }
        self.flush()
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::Output(io::Error::other(error))
}
